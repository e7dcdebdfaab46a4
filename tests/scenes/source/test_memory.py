"""A scene of 20,000 x 20,000 px and 13 bands: what is read of it does not stay in memory."""

from __future__ import annotations

import subprocess
import sys

import pytest
import rasterio
from rasterio.transform import Affine

SIDE = 20_000
READS = """
import resource, sys
from satdifuser.scenes.find import find_scenes
from satdifuser.scenes.source import open_scene, reading_of
from satdifuser.settings.scenes import ReadingSettings

(found,) = find_scenes(sys.argv[1])
scene = open_scene(found, reading_of(None, ReadingSettings(sensor="SENTINEL2"), None))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for top in (0, 9_000, 19_488):
    for left in range(0, 20_000 - 512, int(sys.argv[2])):
        scene.read(slice(top, top + 512), slice(left, left + 512))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("blocks", "step"), [({"tiled": True, "blockxsize": 512, "blockysize": 512}, 512), ({"interleave": "pixel"}, 1536)]
)
@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted in another unit there")
def test_what_was_read_of_a_large_scene_does_not_stay_in_memory(tmp_path, blocks, step):
    shape = {"count": 13, "height": SIDE, "width": SIDE, "dtype": "uint16", "crs": "EPSG:32632"}
    place = Affine(10, 0, 3e5, 0, -10, 5e6)
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", sparse_ok=True, bigtiff="yes", transform=place, **shape, **blocks
    ):
        pass
    done = subprocess.run(
        [sys.executable, "-c", READS, tmp_path / "a.tif", str(step)], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 500  # MB: GDAL's blocks and a window; the blocks that were read have 800
