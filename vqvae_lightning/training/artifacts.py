"""The lineage of a finished run as artifacts of W&B."""

from pathlib import Path
from typing import TYPE_CHECKING

from vqvae_lightning.kinds import KINDS
from vqvae_lightning.storage import file_hash
from vqvae_lightning.training.runs import Run

if TYPE_CHECKING:
    import wandb


def log_artifacts(tracked: "wandb.Run", run: Run, codes: Path | None) -> None:
    """Puts a finished run into the lineage first stage → latents → prior of the W&B run `tracked`.

    The best checkpoint becomes an artifact named like the run; `codes`, the codes or latents that a
    run of stage 2 learned from, a reference to the file where it lies. That a run used a first
    stage can be told to a server only; run.json holds it in any case.
    """
    import wandb

    record = run.record
    source = record.source
    if source and codes:
        name = Path(source.run).name
        origin = {"first_stage": name, "fingerprint": source.fingerprint}
        what = "codes" if KINDS[record.kind].has_codes else "latents"
        artifact = wandb.Artifact(f"{name}-{what}", type=what, metadata=origin)
        artifact.add_reference(codes.resolve().as_uri())
        logged = tracked.log_artifact(artifact)
        if not tracked.offline and not tracked.disabled:
            try:
                tracked.use_artifact(f"{name}:latest")
            # its run is not, or not yet, in this project
            except (wandb.errors.CommError, ValueError) as error:
                print(
                    f"W&B: no lineage to the first stage {name}: {str(error).splitlines()[0]}",
                    flush=True,
                )
            tracked.use_artifact(logged.wait())
    described = {
        "sha256": file_hash(run.best),
        "test": record.test,
        "first_stage": source.as_dict() if source else None,
    }
    model = wandb.Artifact(run.name, type=KINDS[record.kind].artifact, metadata=described)
    model.add_file(str(run.best))
    tracked.log_artifact(model, aliases=["best"])
