from __future__ import annotations

from pathlib import Path

import pytest
from app_client import HERE, PORT, TOKEN, sentence, visitor
from starlette.testclient import TestClient

PLACES = ["/", "/static/index.html", "/api/about", "/api/jobs", "/api/events", "/nothing"]


@pytest.fixture
def stranger(tmp_path: Path) -> TestClient:
    return visitor(tmp_path, token=None)


@pytest.mark.parametrize("place", PLACES)
def test_nobody_gets_in_without_the_token(stranger: TestClient, place: str) -> None:
    assert "needs the address with the token" in sentence(stranger.get(place), 403)
    assert "needs the address with the token" in sentence(stranger.get(f"{place}?token=guess"), 403)
    stranger.cookies.set(f"fd_token_{PORT}", "guess")
    assert "needs the address with the token" in sentence(stranger.get(place), 403)


def test_the_token_becomes_a_cookie_that_scripts_and_other_sites_cannot_use(
    stranger: TestClient,
) -> None:
    answer = stranger.get(f"/?token={TOKEN}&theme=dark", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/?theme=dark")
    cookie = answer.headers["set-cookie"].lower()
    assert all(part in cookie for part in ("httponly", "samesite=strict", "path=/"))
    assert stranger.get("/api/about").status_code == 200


def test_the_redirect_stays_on_this_server(stranger: TestClient) -> None:
    answer = stranger.get(f"{HERE}//other.example/?token={TOKEN}", follow_redirects=False)
    assert answer.headers["location"] == "/other.example/"


@pytest.mark.parametrize(
    "host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", f"127.0.0.1:{PORT + 1}", ""]
)
def test_a_rebound_name_is_refused(tmp_path: Path, host: str) -> None:
    client = visitor(tmp_path)
    answer = client.get("/api/about", headers={"host": host})
    assert "names the host" in sentence(answer, 403)


def test_a_person_who_is_refused_reads_a_page(tmp_path: Path) -> None:
    headers = {"host": "<script>alert(1)</script>", "accept": "text/html,*/*"}
    answer = visitor(tmp_path).get("/", headers=headers)
    assert answer.status_code == 403
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert '<p role="alert">Refused: the address names the host' in answer.text
    assert "<script" not in answer.text


@pytest.mark.parametrize("origin", ["https://evil.example", "null", f"http://127.0.0.1:{PORT + 1}"])
def test_pages_of_others_are_refused(tmp_path: Path, origin: str) -> None:
    client = visitor(tmp_path)
    for method, place in (("POST", "/api/drafts"), ("GET", "/api/jobs"), ("DELETE", "/api/jobs/1")):
        answer = client.request(method, place, headers={"origin": origin})
        assert "comes from a page of" in sentence(answer, 403)


@pytest.mark.parametrize("host", [f"127.0.0.1:{PORT}", f"localhost:{PORT}"])
def test_the_page_itself_passes(tmp_path: Path, host: str) -> None:
    client = visitor(tmp_path)
    headers = {"host": host, "origin": f"http://{host}", "cookie": f"fd_token_{PORT}={TOKEN}"}
    assert client.get("/api/about", headers=headers).status_code == 200


@pytest.mark.parametrize("place", ["/", "/api/about", "/nothing", "/static/nothing"])
def test_every_answer_forbids_other_hosts_and_scripts_in_text(tmp_path: Path, place: str) -> None:
    headers = visitor(tmp_path).get(place).headers
    policy = dict(
        rule.strip().split(" ", 1) for rule in headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'self'"
    assert "http" not in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path", ["../server.py", "..%2fserver.py", "%2e%2e/server.py", "/etc/passwd"]
)
def test_static_files_stay_in_their_folder(tmp_path: Path, path: str) -> None:
    assert visitor(tmp_path).get(f"/static/{path}").status_code in (404, 405)


def test_unknown_addresses_are_sentences(tmp_path: Path) -> None:
    client = visitor(tmp_path)
    assert sentence(client.get("/nothing"), 404) == "/nothing: there is nothing here."
    assert sentence(client.put("/api/about"), 405) == "/api/about: not with PUT."


@pytest.mark.parametrize("name", ["0123456789ab", "..%2f..%2fetc", "a" * 500, "%00"])
def test_made_up_ids_are_refused(tmp_path: Path, name: str) -> None:
    client = visitor(tmp_path)
    for kind in ("jobs", "drafts"):
        assert "there is" in sentence(client.get(f"/api/{kind}/{name}"), 404)
        assert "there is" in sentence(client.delete(f"/api/{kind}/{name}"), 404)
