from __future__ import annotations

import re

import pytest

from models.features import NAMES
from models.topics import Topics
from serving import app, demo
from serving.health import Health
from tests.made import a_bundle
from tests.served import BUNDLE, Client, Served

NOBODY = {"bootstrap.servers": "127.0.0.1:1"}
FILES = {path: (demo.FOLDER / name).read_text(encoding="utf-8") for path, name in demo.FILES.items()}


def page(made: Served) -> Client:
    shown = demo.Demo(made.ranking, NOBODY, Topics())
    health = Health(made.status, made.ranking, made.metrics)
    return Client(app.build(made.ranking, health, made.metrics, pages=shown.routes()))


CLIENT = page(Served())


@pytest.mark.parametrize("path", FILES)
def test_the_pages_files_are_served_and_may_load_nothing_from_elsewhere(path: str) -> None:
    answer = CLIENT.get(path)
    assert answer.status_code == 200
    assert answer.text == FILES[path]
    assert answer.headers["content-security-policy"].startswith("default-src 'self'")
    assert not re.search(r"(https?:)?//[\w.-]+\.\w", FILES[path])


def test_the_page_names_only_files_that_are_served() -> None:
    named = re.findall(r'(?:src|href)="(/[^"]*)"', FILES["/"])
    assert set(named) == set(FILES) - {"/"}


def test_every_element_that_the_script_looks_for_is_on_the_page() -> None:
    looked_for = set(re.findall(r'\$\("([\w-]+)"\)', FILES["/page/page.js"]))
    assert looked_for
    assert looked_for <= set(re.findall(r'id="([\w-]+)"', FILES["/"]))


def test_every_feature_has_a_name_on_the_page() -> None:
    [names] = re.findall(r"const NAMES = \{(.*?)\};", FILES["/page/page.js"], re.DOTALL)
    assert set(re.findall(r"^\s*(\w+):", names, re.MULTILINE)) == set(NAMES)


def test_without_the_page_none_of_it_is_there() -> None:
    client = Client(Served().app)
    for path in ("/", "/page/page.js", "/page/markets"):
        assert client.get(path).status_code == 404


def test_markets_come_with_the_largest_first() -> None:
    assert CLIENT.get("/page/markets").json() == [
        {"name": "here", "listings": 40},
        {"name": "there", "listings": 20},
    ]


def test_a_search_finds_a_markets_listings_in_an_order_that_stays() -> None:
    first, again = (CLIENT.post("/page/search", json={"market": "there"}).json() for _ in range(2))
    assert first["search_id"] != again["search_id"]
    assert first["candidates"] == again["candidates"]
    assert {hit["listing_id"] for hit in first["candidates"]} == {f"l{row}" for row in range(40, 60)}
    scores = [hit["score"] for hit in first["candidates"]]
    assert scores == sorted(scores, reverse=True)
    assert len(CLIENT.post("/page/search", json={"market": "here"}).json()["candidates"]) == demo.SHOWN


def test_listings_that_are_alike_have_colours_that_are_alike() -> None:
    vectors = BUNDLE.vectors.copy()
    vectors[1] = vectors[0]
    vectors[2] = 0
    hits = page(Served(a_bundle(vectors=vectors[:24]))).post("/page/search", json={"market": ""}).json()
    hue = {hit["listing_id"]: (hit["hue"], hit["chroma"]) for hit in hits["candidates"]}
    assert hue["l0"] == hue["l1"]
    assert hue["l2"][1] == 0
    assert len(set(hue.values())) > 20


def test_an_unknown_market_is_refused() -> None:
    answer = CLIENT.post("/page/search", json={"market": "nowhere"})
    assert answer.status_code == 404
    assert answer.json()["field"] == "$.market"


@pytest.mark.parametrize(
    "said",
    [
        {"type": "click", "listing_id": "l1"},
        {"type": "click", "user_id": "u"},
        {"type": "dance", "user_id": "u", "listing_id": "l1"},
        {"type": "click", "user_id": "__checkpoint", "listing_id": "l1"},
        {"type": "tick"},
        {"type": "tick", "user_id": "u"},
        [],
    ],
)
def test_what_is_no_event_is_refused(said: object) -> None:
    assert CLIENT.post("/page/events", json=said).status_code == 400


def test_an_event_that_no_broker_takes_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "DELIVERY_SECONDS", 0.2)
    said = {"type": "click", "user_id": "u", "listing_id": "l1"}
    answer = page(Served()).post("/page/events", json=said)
    assert answer.status_code == 503
    assert "the event was not taken" in answer.json()["detail"]
