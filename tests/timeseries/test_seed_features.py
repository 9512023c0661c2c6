"""Each row of the seeds' feature table that is timeseries-api's, but the plot page (row 53)."""

import pytest

from tests.timeseries.bench import Bench
from tests.timeseries.seed_features import PAGE, ROWS, in_page


@pytest.mark.timeout(30)
@pytest.mark.parametrize("number", ROWS)
async def test_row(api: Bench, number: int) -> None:
    await ROWS[number].verify(api)


def test_every_row_is_here_and_the_page_has_them() -> None:
    assert sorted(ROWS) == [46, 47, 48, 49, 50, 51, 52, 54, 55]
    assert all(row.verify.__doc__ for row in ROWS.values())
    page = PAGE.read_text(encoding="utf-8")
    assert in_page(page) == page, "python -m tests.timeseries.seed_features writes it"
