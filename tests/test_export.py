"""Export from the command line."""

from pathlib import Path

import onnx
import pytest

from handwriting.export import main


def test_the_command_writes_the_model_of_a_run(digits_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    main([str(digits_run), "--onnx", str(tmp_path / "a" / "net.onnx")])
    onnx.checker.check_model(onnx.load(tmp_path / "a" / "net.onnx"))
    said = capsys.readouterr().out
    assert said.startswith(f"{tmp_path / 'a' / 'net.onnx'}: ")
    assert "same predictions as the model on 200 test images" in said


@pytest.mark.long
def test_the_command_writes_a_model_of_several_characters(
    street_runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for name in ("detector", "seed=0"):
        main([str(street_runs[name]), "--onnx", str(tmp_path / f"{name}.onnx")])
        onnx.checker.check_model(onnx.load(tmp_path / f"{name}.onnx"))
        assert "same predictions as the model on 40 test images (outputs differ by at most" in capsys.readouterr().out


def test_bad_input_is_one_sentence_and_code_2(digits_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    content = (digits_run / "checkpoints" / "best.ckpt").read_bytes()
    (tmp_path / "whole.ckpt").write_bytes(content)
    (tmp_path / "cut.ckpt").write_bytes(content[:3000])
    (tmp_path / "file").touch()
    for checkpoint, onnx_file in [("none", "a.onnx"), ("cut.ckpt", "a.onnx"), ("whole.ckpt", "file/a.onnx")]:
        with pytest.raises(SystemExit) as stop:
            main([str(tmp_path / checkpoint), "--onnx", str(tmp_path / onnx_file)])
        assert stop.value.code == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert not list(tmp_path.rglob("*.onnx"))
