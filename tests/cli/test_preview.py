"""``synthpipe preview`` from an option file to a PNG."""

from __future__ import annotations

import argparse
import io
import tarfile

import numpy as np
import pytest
import yaml
from PIL import Image

from synthpipe.cli import preview as command
from synthpipe.errors import OptionError


def main(*argv):
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    return command.run(parser.parse_args(["preview", *map(str, argv)]))


@pytest.fixture
def option_file(tmp_path):
    with tarfile.open(tmp_path / "s-000000.tar", "w") as tar:
        for number in range(4):
            array = np.random.default_rng(number).integers(0, 256, (120, 120, 3), dtype=np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(array).save(buffer, "PNG")
            info = tarfile.TarInfo(f"{number}.png")
            info.size = buffer.tell()
            buffer.seek(0)
            tar.addfile(info, buffer)
    noise = {"type": "classical", "noise": {"type": "gaussian", "sigma": [0.03, 0.03]}}
    options = {"shards": str(tmp_path / "s-000000.tar"), "gt_size": 64, "scale": 2, "degrade": noise}
    (tmp_path / "stream.yml").write_text(yaml.safe_dump(options))
    block = {"name": "c", "type": "SynthPipeDataset", "shards": options["shards"], "gt_size": 64, "degrade": noise}
    (tmp_path / "basicsr.yml").write_text(yaml.safe_dump({"name": "run", "scale": 2, "datasets": {"train": block}}))
    return tmp_path / "stream.yml"


def test_the_picture_is_written_and_its_noise_is_said(option_file, tmp_path, capsys):
    assert main(option_file, tmp_path / "out" / "deep", "--rows", 2, "--crop", 32, "--zoom", 3) == 0
    with Image.open(tmp_path / "out" / "deep" / "preview.png") as picture:
        assert picture.size == (3 * 96 + 2 * 4, 22 + 2 * 96 + 4)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == str(tmp_path / "out" / "deep" / "preview.png")
    sigmas = [float(word) for word in lines[0].split() if word.replace(".", "").isdigit()][:3]
    assert sigmas == pytest.approx([0.03 * 255] * 3, rel=0.1)


def test_a_basicsr_option_file_gives_the_same_picture(option_file, tmp_path):
    assert main(option_file, tmp_path / "a", "--rows", 1, "--crop", 32) == 0
    assert main(option_file.with_name("basicsr.yml"), tmp_path / "b", "--rows", 1, "--crop", 32) == 0
    assert (tmp_path / "a" / "preview.png").read_bytes() == (tmp_path / "b" / "preview.png").read_bytes()


def test_stages_are_shown_and_those_that_none_drew_are_named(option_file, tmp_path, capsys):
    options = yaml.safe_load(option_file.read_text())
    options["degrade"] = [{"type": "quantise", "levels": 2, "probability": 0}, {"type": "resize", "to": "lr"}]
    option_file.write_text(yaml.safe_dump(options))
    assert main(option_file, tmp_path / "a", "--rows", 1, "--crop", 32, "--zoom", 1, "--stages", "--seen", 5) == 0
    assert "drawn by none of the crops: quantise" in capsys.readouterr().out.splitlines()
    with Image.open(tmp_path / "a" / "preview.png") as picture:
        assert picture.size == (4 * 32 + 3 * 4, 22 + 32)


def test_bad_arguments(option_file, tmp_path):
    with pytest.raises(OptionError, match="--rows: expected at least 1, got 0"):
        main(option_file, tmp_path, "--rows", 0)
    with pytest.raises(OptionError, match="--crop: expected at least 9"):
        main(option_file, tmp_path, "--crop", 4)
    with pytest.raises(OptionError, match="--seen: expected at least 0"):
        main(option_file, tmp_path, "--seen", -4)
    with pytest.raises(OptionError, match="--seen: expected at most"):
        main(option_file, tmp_path, "--seen", 10**20)
    with pytest.raises(OptionError, match=r"cannot read option file '.*absent\.yml'"):
        main(tmp_path / "absent.yml", tmp_path)
