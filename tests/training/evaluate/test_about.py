"""The report's table of costs."""

from pathlib import Path
from types import SimpleNamespace

from training.evaluate.report.about import about_tables
from training.evaluate.report.collect import Collected


def test_a_set_of_one_batch_has_no_time_in_the_network():
    """Its only batch includes starting up, so the first method looked slower than NASA."""

    def cost(sampled, seconds):
        return {"images": 32, "seconds": 4.0, "sampled": sampled, "sampling_seconds": seconds, "device": "cpu"}

    def images(method):
        about = {"title": "x", "method": method, "images": range(32), "recipe": None, "size": None, "model": None}
        return SimpleNamespace(**about, setup=lambda: "same", seed=0, precision="no", protocol="")

    one, two = Path("none"), Path("nasa-1")
    sets = {one: images("none"), two: images("nasa:1")}
    for sampled, none, nasa in ((32, ["-", "-"], ["-", "-"]), (16, ["125.0", "1.00"], ["62.5", "0.50"])):
        found = Collected(sets=sets, costs={one: cost(sampled, sampled / 8), two: cost(sampled, sampled / 16)})
        rows = about_tables(found)[0].rows
        assert [row[4:6] for row in rows] == [none, nasa] and rows[0][6] == "8.0"
