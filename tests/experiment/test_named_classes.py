"""What a configuration names is called only if it is a class of the kind that belongs there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from audit import PLANTED, watched

from multimodal import load_config
from multimodal.cli.main import main
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.experiment.named_classes import check_named_classes


@pytest.fixture
def run_config(small_config: Path, tmp_path: Path) -> Any:
    """Write the configuration with another optimizer, and return it with the file that a command of it would create."""

    def write(class_path: str, **init_args: str) -> tuple[Path, Path]:
        created = tmp_path / "created"
        script = tmp_path / "script.py"
        script.write_text(f"open({str(created)!r}, 'w')")
        given = {name: value.format(created=created, script=script) for name, value in init_args.items()}
        settings = yaml.safe_load(small_config.read_text())
        settings["model"]["optimizer"] = {"class_path": class_path, "init_args": given}
        config = tmp_path / "config.yaml"
        config.write_text(yaml.safe_dump(settings))
        return config, created

    return write


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
@pytest.mark.parametrize(
    ("class_path", "init_args"),
    [
        ("os.system", {"command": "touch {created}"}),
        ("runpy.run_path", {"path_name": "{script}"}),
        ("builtins.open", {"file": "{created}", "mode": "w"}),
        ("pathlib.Path", {}),
    ],
)
def test_what_is_not_an_optimizer_is_not_called(
    command: str,
    class_path: str,
    init_args: dict[str, str],
    run_config: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config, created = run_config(class_path, **init_args)
    assert main([command, "--config", str(config), "--run", str(tmp_path / "run")]) == 2
    assert "optimizer" in capsys.readouterr().err
    assert not created.exists()
    assert not (tmp_path / "run").exists()


def test_loading_a_configuration_calls_it_neither(run_config: Any) -> None:
    config, created = run_config("os.system", command="touch {created}")
    with pytest.raises(UsageError, match=r"model\.optimizer: os\.system is not a subclass of torch\.optim\.Optimizer"):
        load_config(config)
    assert not created.exists()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            {"trainer": {"callbacks": [{"class_path": "os.system"}]}},
            r"trainer\.callbacks\[0\]: os\.system is not a class",
        ),
        ({"model": {"encoders": {"text": {"class_path": "runpy.run_path"}}}}, r"model\.encoders\.text: .* not a class"),
        ({"model": {"optimizer": {"class_path": "torch.nn.Linear"}}}, "not a subclass"),
    ],
)
def test_functions_are_refused_wherever_a_class_is_named(config: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check_named_classes(config)


@pytest.mark.parametrize(
    "place",
    [
        ["data", "table"],
        ["data", "options", "reader"],
        ["model", "encoders", "text", "init_args", "config", "inner"],
        ["trainer"],
    ],
)
@pytest.mark.parametrize("kind", ["a class", "a list of classes", "an address"])
def test_a_setting_of_any_type_is_neither_made_into_an_object_nor_fetched(
    place: list[str], kind: str, small_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{PLANTED}_things.py").write_text(
        f"import sys\nclass Thing:\n    def __new__(cls, *_, **__):\n        sys.audit('{PLANTED}.call')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    named = {"class_path": f"{PLANTED}_things.Thing"}
    value = {"a class": named, "a list of classes": [named], "an address": "https://127.0.0.1:9/x"}[kind]
    settings = yaml.safe_load(small_config.read_text())
    settings["model"]["encoders"]["text"] = {"class_path": "text.huggingface", "init_args": {"config": {}}}
    inside = settings
    for name in place[:-1]:
        inside = inside.setdefault(name, {})
    inside[place[-1]] = value
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(settings))
    with watched(tmp_path, imports=True) as seen, pytest.raises(MultimodalError):
        load_config(config)
    assert [event for event in seen if event.startswith((PLANTED, "socket.connect", "socket.getaddrinfo"))] == []
