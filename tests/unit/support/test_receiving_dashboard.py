"""The receiving dashboard does what the real one was seen to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Iterator

import pytest
import requests

from tests.support.certificate import make_certificate
from tests.support.dashboard import API_KEY, DEPLOY_KEY, Answer, ReceivingDashboard
from tests.support.dashboard_faults import answer, drip, hang, reset, rewrite, store_and_reset

JOB: dict[str, Any] = {
    "JobID": "7",
    "User": "ada",
    "Account": "physics",
    "Partition": "main",
    "State": "COMPLETED",
    "QOS": None,
    "NodeList": "n[1-2]",
    "Submit": "2024-03-01T10:00:00",
    "Start": "2024-03-01T10:00:05",
    "End": "2024-03-01T11:00:05",
    "CPUHours": 2.0,
    "GPUHours": 0,
    "AllocCPUS": 2,
    "AllocGPUS": 0,
    "AllocNodes": 2,
}


@pytest.fixture
def dashboard() -> Iterator[ReceivingDashboard]:
    with ReceivingDashboard() as running:
        yield running


def post(dashboard: ReceivingDashboard, *jobs: Any, key: str = API_KEY, **options: Any) -> requests.Response:
    body = {"hostname": "lab", "jobs": list(jobs)}
    options = {"headers": {"X-API-Key": key}, "timeout": 10, **options}
    return requests.post(f"{dashboard.url}/api/data/ingest", json=body, **options)


def test_stores_a_batch_and_counts_it(dashboard: ReceivingDashboard) -> None:
    """A good POST is answered with the number of its jobs, and they are on the dashboard."""
    response = post(dashboard, JOB, {**JOB, "JobID": "8"})
    expected = {
        "success": True,
        "message": "Successfully ingested 2 jobs for lab",
        "jobs_processed": 2,
        "hostname": "lab",
    }
    assert (response.status_code, response.json()) == (200, expected)
    assert dashboard.records == {"7": JOB, "8": {**JOB, "JobID": "8"}}


def test_takes_an_empty_batch(dashboard: ReceivingDashboard) -> None:
    """No jobs are fine, and the cheapest test of a key."""
    assert post(dashboard).json()["jobs_processed"] == 0


def test_the_record_that_arrives_last_wins(dashboard: ReceivingDashboard) -> None:
    """Records of one JobID and year of Submit replace each other, older facts newer ones included."""
    for state in ("COMPLETED", "FAILED"):
        post(dashboard, {**JOB, "State": state})
    assert dashboard.records["7"]["State"] == "FAILED"


def test_keeps_a_record_for_each_year_of_submit(dashboard: ReceivingDashboard) -> None:
    """A JobID whose Submit changes its year is stored on the dashboard twice."""
    post(dashboard, JOB, {**JOB, "Submit": "2023-12-31T23:59:59"})
    assert sorted(dashboard.stored) == [("lab", 2023, "7"), ("lab", 2024, "7")]
    with pytest.raises(ValueError, match="more than once"):
        dashboard.records  # noqa: B018  # the look is what raises


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("Start", "None"),
        ("End", "Unknown"),
        ("Submit", ""),
        ("Submit", None),
        ("User", None),
        ("State", 3),
        ("CPUHours", "2"),
        ("AllocCPUS", 1.5),
        ("AllocGPUS", True),
    ],
)
def test_one_record_of_a_wrong_type_refuses_all(dashboard: ReceivingDashboard, field: str, value: object) -> None:
    """The 422 names the record and its field, and nothing is stored."""
    response = post(dashboard, JOB, {**JOB, "JobID": "8", field: value})
    detail = response.json()["detail"]
    assert response.status_code == 422
    assert [(problem["loc"], problem["input"]) for problem in detail] == [(["body", "jobs", 1, field], value)]
    assert dashboard.records == {}


def test_names_a_field_that_is_missing(dashboard: ReceivingDashboard) -> None:
    """A required field that is not there is a 422, too."""
    response = post(dashboard, {name: value for name, value in JOB.items() if name != "Account"})
    assert response.json()["detail"][0]["msg"] == "Field required"


def test_a_null_start_is_a_500(dashboard: ReceivingDashboard) -> None:
    """A null Start is of the right type, and a 500 for the whole POST."""
    response = post(dashboard, JOB, {**JOB, "JobID": "8", "Start": None})
    assert response.status_code == 500
    assert "'NaTType' object has no attribute 'start_time'" in response.json()["detail"]
    assert dashboard.records == {}


def test_mixed_offsets_are_a_500(dashboard: ReceivingDashboard) -> None:
    """Times with and without an offset in one POST are a 500."""
    assert post(dashboard, JOB, {**JOB, "End": "2024-03-01T11:00:05+01:00"}).status_code == 500


def test_wants_a_valid_key(dashboard: ReceivingDashboard) -> None:
    """A wrong key is a 401 before anything is looked at; a server without keys answers 500."""
    assert post(dashboard, {}, key="wrong").status_code == 401
    with ReceivingDashboard(api_keys=set()) as keyless:
        response = post(keyless, JOB)
    assert (response.status_code, response.json()) == (500, {"detail": "No API keys configured on server"})


def test_reports_its_health(dashboard: ReceivingDashboard) -> None:
    """The health call needs no key, the agent's does."""
    post(dashboard, JOB)
    health = requests.get(f"{dashboard.url}/api/dashboard/health", timeout=10).json()
    assert (health["status"], health["data_loaded"], health["hostnames"]) == ("healthy", True, ["lab"])
    for key, status in ((API_KEY, 200), ("wrong", 401)):
        headers = {"X-API-Key": key}
        assert requests.get(f"{dashboard.url}/api/agent/health", headers=headers, timeout=10).status_code == status


def test_exchanges_a_deploy_key_once(dashboard: ReceivingDashboard) -> None:
    """A deploy key returns a working API key the first time, and a 401 afterwards."""
    url = f"{dashboard.url}/api/agent/exchange-deploy-key"
    first, second = (requests.post(url, data={"deploy_key": DEPLOY_KEY}, timeout=10) for _ in range(2))
    assert first.json()["cluster_name"] == "lab"
    assert post(dashboard, JOB, key=first.json()["api_key"]).status_code == 200
    assert second.status_code == 401


def test_records_every_request(dashboard: ReceivingDashboard) -> None:
    """Requests are kept with their time and records, the refused ones as well."""
    post(dashboard, JOB, key="wrong")
    post(dashboard, JOB)
    assert [request.jobs for request in dashboard.posts] == [[JOB], [JOB]]
    assert dashboard.posts[0].arrived <= dashboard.posts[1].arrived


def test_each_request_gets_one_fault_until_none_is_left(dashboard: ReceivingDashboard) -> None:
    """Each fault serves one request; after the last one the dashboard works normally."""
    fewer = rewrite(lambda good: Answer(200, {**good.body, "jobs_processed": 0}))
    dashboard.faults.extend([answer(503, "busy", Retry_After="7"), answer(302, Location="http://b.example/"), fewer])
    busy, moved, short, good = (post(dashboard, JOB, allow_redirects=False) for _ in range(4))
    assert (busy.status_code, busy.text, busy.headers["Retry-After"]) == (503, "busy", "7")
    assert (moved.status_code, moved.headers["Location"]) == (302, "http://b.example/")
    assert [response.json()["jobs_processed"] for response in (short, good)] == [0, 1]


def test_can_lose_a_request_or_only_its_answer(dashboard: ReceivingDashboard) -> None:
    """The connection breaks off before or after the records were stored."""
    for fault, stored in ((reset, 0), (store_and_reset, 1)):
        dashboard.faults.append(fault)
        with pytest.raises(requests.ConnectionError):
            post(dashboard, JOB)
        assert len(dashboard.stored) == stored


def test_can_hang_and_drip(dashboard: ReceivingDashboard) -> None:
    """A hanging dashboard outlasts the client's patience for a first byte, a dripping one does not."""
    dashboard.faults.extend([hang(), drip(0.001)])
    with pytest.raises(requests.ReadTimeout):
        post(dashboard, JOB, timeout=0.3)
    assert post(dashboard, JOB, timeout=0.3).json()["jobs_processed"] == 1


def test_speaks_tls(tmp_path: Path) -> None:
    """With a certificate it is reached by HTTPS, by those who trust it."""
    pem = make_certificate(tmp_path)
    with ReceivingDashboard(tls=pem) as dashboard:
        assert post(dashboard, JOB, verify=str(pem)).status_code == 200
        with pytest.raises(requests.exceptions.SSLError):
            post(dashboard, JOB, verify=True)
