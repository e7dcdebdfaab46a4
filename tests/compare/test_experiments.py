"""The grids that ship, and one of a user's own that takes its models from one of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from satdifuser.compare.grid import expand
from satdifuser.config import compose, groups


@pytest.mark.parametrize("name", groups()["experiment"])
def test_every_grid_that_ships_has_runs_of_different_settings(name: str) -> None:
    config = compose("compare", [f"experiment={name}"])
    cells = expand(config, [] if config.tasks else ["task=segmentation"])
    assert len({cell.model for cell in cells}) >= len(config.models) >= 4
    seen = [cell.settings() for cell in cells]
    assert all(one not in seen[:place] for place, one in enumerate(seen))
    assert len(cells) == len({cell.task for cell in cells}) * len({c.model for c in cells}) * len(config.budgets) * len(
        config.seeds
    )


def test_a_grid_of_ones_own_takes_models_from_one_that_ships_and_adds_its_tasks(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "m_eurosat.yaml").write_text("defaults: [synthetic]\nsize: 32\n")
    (tmp_path / "experiment" / "geobench.yaml").write_text(
        "# @package _global_\n"
        "defaults: [satdifuser, _self_]\n"
        "tasks:\n  m-eurosat: [data=m_eurosat, task=classification, decoder=linear]\n"
    )
    folders = [str(tmp_path)]
    cells = expand(compose("compare", ["experiment=geobench"], folders), ["seed=0"], folders)
    assert {cell.task for cell in cells} == {"m-eurosat"}
    assert {"DiffusionSat gw", "DiffusionSat moe", "CROMA"} <= {cell.model for cell in cells}
    assert all(cell.config.data["size"] == 32 for cell in cells)
