"""Recipes over HTTPS, from a server of our own."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from flagscale_deploy.errors import InputError
from flagscale_deploy.recipes.library import find_recipe
from flagscale_deploy.recipes.site import Site
from tests.tls import certificate

LIBRARY = Path(__file__).parents[2] / "unit/recipes/library"
SPARSE = "example/Sparse-48B-A3B"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        file = LIBRARY / self.path.lstrip("/")
        if self.path == "/moved":
            self.send_response(301)
            self.send_header("Location", "https://elsewhere.example/")
            self.end_headers()
        elif self.path == "/large":
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):  # the reader has enough
                for _ in range(80):
                    self.wfile.write(b" " * (64 << 10))
        elif self.path == "/slow":
            stopped.wait(60)
        elif file.is_file():
            self.send_response(200)
            self.end_headers()
            self.wfile.write(file.read_bytes())
        else:
            self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


stopped = threading.Event()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    pem, key = certificate(tmp_path_factory.mktemp("tls"), "site", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Site("127.0.0.1", server.server_address[1], ssl.create_default_context(cafile=str(pem)), 20.0)
    stopped.set()
    server.shutdown()
    server.server_close()


def test_a_recipe_is_read_from_the_site_also_one_that_another_file_links_to(site: Site) -> None:
    assert find_recipe(site, SPARSE, "h200", "single_node_tep").gpus == 8
    assert find_recipe(site, SPARSE, "h200", "multi_node_dep").nodes == 2


def test_what_is_not_there_is_none(site: Site) -> None:
    assert site.get("models.json") is None


@pytest.mark.parametrize(
    ("path", "problem"),
    [("moved", "found HTTP status 301, expected 200"), ("large", "is not reached: an HTTP answer of more than 4 MiB")],
)
def test_what_is_no_answer_is_told(site: Site, path: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem) as raised:
        site.get(path)
    assert "--recipes DIR" in str(raised.value)


def test_an_answer_that_does_not_come_ends_the_wait(site: Site) -> None:
    with pytest.raises(InputError, match=r"is not reached: .*timed out"):
        Site(site.host, site.port, site.context, 1.0).get("slow")


def test_another_server_s_certificate_is_refused(site: Site) -> None:
    with pytest.raises(InputError, match=r"no HTTPS is spoken there: .*CERTIFICATE_VERIFY_FAILED"):
        Site(site.host, site.port).get("models.json")


def test_a_machine_without_a_network_is_told_what_to_do() -> None:
    with pytest.raises(InputError, match="is not reached: ") as raised:
        Site("127.0.0.1", 1).get("models.json")
    assert "name a folder with the site's files: --recipes DIR" in str(raised.value)
