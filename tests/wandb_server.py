"""A W&B server on loopback that knows enough to take a run (not its artifacts), until it is lost as
a test asks.
"""

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

VIEWER = {"id": "v", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}
PROJECT = {"id": "p", "name": "vqvae_lightning", "entity": {"id": "e", "name": "me"}}


class WandbServer(ThreadingHTTPServer):
    """`lost`: "in the middle" (gone after the first metrics), "at the end" (takes files, never
    answers), "its mind" (answers with what W&B's own client stumbles over), or "" (it serves).
    `runs` holds the names of the runs it was told of, `history` the metrics that it took.
    """

    daemon_threads, block_on_close = True, False

    def __init__(self, lost: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lost, self.over = lost, threading.Event()
        self.runs: set[str] = set()
        self.history: list[Any] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def handle_error(self, request, client_address):
        pass  # connections that the client gave up

    def answer(self, path: str, text: str) -> dict[str, Any] | None:
        """What it says to a request; None: nothing, ever."""
        if "file_stream" in path:
            self.history += (
                json.loads(text).get("files", {}).get("wandb-history.jsonl", {}).get("content", [])
            )
            if self.lost == "in the middle":
                self.over.set()
                self.socket.close()
            return {}
        if "upsertBucket" in text:
            name = json.loads(text)["variables"]["name"]
            self.runs.add(name)
            bucket = {
                "id": "b",
                "name": name,
                "displayName": name,
                "config": "{}",
                "project": PROJECT,
            }
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if "createRunFiles" in text:
            if self.lost == "at the end":
                self.over.wait(60)
            if self.lost == "its mind":
                return {}
            files = json.loads(text)["variables"]["files"]
            places = [{"name": file, "uploadUrl": f"{self.url}/files/{file}"} for file in files]
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": places}}
        return {"viewer": VIEWER} if "viewer" in text else {}


class Handler(BaseHTTPRequestHandler):
    server: WandbServer
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        answer = self.server.answer(self.path, body.decode(errors="replace"))
        if self.server.over.is_set():
            self.close_connection = True
            return
        said = json.dumps({"data": answer} if "graphql" in self.path else answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    do_PUT = do_GET = do_POST

    def log_message(self, *args):
        pass
