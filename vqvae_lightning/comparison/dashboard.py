"""The W&B workspace of a project, built by code: panels for the keys that all models share, runs
grouped by model.

Needs the optional package wandb-workspaces. Nothing is sent until `save_dashboard` finds a server
and a key.
"""

from typing import Any

from vqvae_lightning.config import ConfigError, DashboardOptions, one_line
from vqvae_lightning.kinds import KINDS
from vqvae_lightning.metrics.measures import dashboard_curves
from vqvae_lightning.training.tracking import why_not_online
from vqvae_lightning.training.wandb_names import project_name

X = "trainer/global_step"


def workspace(entity: str, project: str) -> Any:
    """The workspace, not sent anywhere. Raises ConfigError if wandb-workspaces is not installed."""
    try:
        import wandb_workspaces.reports.v2 as panels
        import wandb_workspaces.workspaces as views
    except ImportError:
        raise ConfigError(
            "dashboard: the package wandb-workspaces is not installed; run `pip"
            " install 'vqvae_lightning[dashboard]'`"
        ) from None

    # W&B takes a plus sign in a name for an emoji, and refuses it.
    titles = [kind.title.replace("+", "with") for kind in KINDS.values()]
    return views.Workspace(
        entity=entity,
        project=project,
        name=f"{', '.join(titles[:-1])} and {titles[-1]}",
        sections=[
            views.Section(name=name, panels=found, is_open=True)
            for name, found in _sections(panels).items()
        ],
        settings=views.WorkspaceSettings(x_axis=X, max_runs=50),
        runset_settings=views.RunsetSettings(
            groupby=[views.Config("kind")],
            pinned_columns=["config:dataset", "config:seed", "summary:test/psnr"],
        ),
    )


def _sections(panels: Any) -> dict[str, list[Any]]:
    """Sections → their panels, made of the classes of `wandb_workspaces.reports.v2`."""
    compared = [
        panels.WeavePanelSummaryTable(table_name="compare/results"),
        panels.WeavePanelSummaryTable(table_name="compare/samplers"),
    ]
    test = [
        panels.BarPlot(title="Test PSNR, dB", metrics=["test/psnr"], groupby=panels.Config("kind")),
        panels.ScatterPlot(
            title="Rate and distortion on test, nats per image",
            x=panels.SummaryMetric("test/rate"),
            y=panels.SummaryMetric("test/distortion"),
        ),
    ]
    pictures = [
        panels.MediaBrowser(title=name, media_keys=[f"test/{name}"])
        for name in ("reconstructions", "samples")
    ]
    # A model that does not log a name is not in its panel.
    curves = {
        section: [panels.LinePlot(title=title, x=X, y=[name]) for title, name in names.items()]
        for section, names in dashboard_curves().items()
    }
    return {
        "Comparison (`vqvae compare wandb=true`)": compared,
        "Test": test,
        "Pictures": pictures,
        **curves,
    }


def save_dashboard(options: DashboardOptions) -> str | None:
    """Saves the workspace and returns its address; None, with a line that says why, where there is
    no server or key.
    """
    project = project_name(options.project)
    built = workspace(options.entity or "", project)
    panels = sum(len(section.panels) for section in built.sections)
    print(
        f"dashboard of {len(built.sections)} sections and {panels} panels for the W&B project"
        f" {project}"
    )
    reason = why_not_online()
    if reason:
        print(f"not saved, because {reason}")
        return None
    import wandb

    try:
        built.entity = options.entity or wandb.Api().default_entity
        return str(built.save().url)
    except Exception as error:  # W&B's own types of error, and those of requests and pydantic
        reason = f"{type(error).__name__}: {one_line(error)[:200]}"
        raise ConfigError(f"dashboard: W&B did not save it ({reason})") from error
