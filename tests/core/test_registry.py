"""Encoders by name: registered, announced by a package, or named by their class path."""

from __future__ import annotations

import warnings
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from multimodal.core import registry
from multimodal.core.encoder import Encoder, Processor
from multimodal.core.errors import MultimodalError, UsageError


class Numbers(Processor):
    def __call__(self, value: Any) -> Any:
        return value

    def collate(self, items: Any) -> dict[str, Tensor]:
        raise NotImplementedError


class Spectrum(Encoder):
    """Bands of a sound.

    A second paragraph.
    """

    def __init__(self, bands: int, width: int = 3, name: str = "mel") -> None:
        super().__init__()
        self.bands, self.width, self.name, self.processor = bands, width, name, Numbers()

    def forward(self, x: Tensor) -> Tensor:
        return x


class Other(Spectrum):
    pass


class Open(Spectrum):
    def __init__(self, bands: int = 4, **settings: Any) -> None:
        super().__init__(bands, **settings)


PATH = f"{__name__}.Spectrum"
PLUGIN = """
from {module} import Spectrum
from multimodal.core.registry import register

imports = globals().get("imports", 0) + 1

@register("sound", "plugged")
class Plugged(Spectrum):
    pass
"""


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoders that a test registers are removed after it."""
    registry.registrations()
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    monkeypatch.setattr(registry, "_loaded_entry_points", set(registry._loaded_entry_points))


def announce(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    points = [EntryPoint(name=m, value=m, group="multimodal.encoders") for m in modules]
    monkeypatch.setattr(registry, "entry_points", lambda group: [p for p in points if p.group == group])


def test_a_registered_encoder_is_found_by_name_and_built_with_settings() -> None:
    assert registry.register("sound", "spectrum")(Spectrum) is Spectrum
    assert registry.find_encoder("sound", "spectrum") is Spectrum
    encoder = registry.create("sound", "spectrum", bands=5, width=7)
    assert isinstance(encoder, Spectrum)
    assert (encoder.bands, encoder.width) == (5, 7)


def test_an_unregistered_encoder_is_found_by_its_class_path() -> None:
    assert registry.find_encoder("sound", PATH) is Spectrum
    assert registry.create("sound", PATH, bands=5).settings == {"bands": 5, "width": 3, "name": "mel"}


def test_an_encoder_of_another_modality_is_named_with_its_modality() -> None:
    encoder = registry.create("title", "text.transformer", width=8, layers=1, heads=2)
    assert registry.saved_names("title", type(encoder)) == (
        "text.transformer",
        "multimodal_encoders.text.transformer.TextTransformer",
    )
    assert registry.saved_names("text", type(encoder))[0] == "transformer"
    assert registry.saved_encoder_name("title", "text.transformer", "moved.Class") == "text.transformer"
    with pytest.raises(UsageError, match=r"'title', so 'transformer' is unknown\. Write text\.transformer or a class"):
        registry.find_encoder("title", "transformer")
    with pytest.raises(UsageError, match=r"Did you mean 'text\.transformer'"):
        registry.find_encoder("title", "text.transfomer")


def test_the_encoders_that_come_with_the_package_are_registered() -> None:
    found = {(r.modality, r.name): r.class_path for r in registry.registrations()}
    assert found["image", "cnn"] == "multimodal_encoders.image.cnn.CNN"
    assert found["graph", "gnn"] == "multimodal_encoders.graph.gnn.GNN"
    assert found["text", "transformer"] == "multimodal_encoders.text.transformer.TextTransformer"


def test_registrations_are_sorted_and_may_be_limited_to_one_modality() -> None:
    for name in ("zeta", "alpha"):
        registry.register("sound", name)(Spectrum)
    names = [(r.modality, r.name) for r in registry.registrations()]
    assert names == sorted(names)
    assert {"image", "sound"} <= {modality for modality, _ in names}
    assert [r.name for r in registry.registrations("sound")] == ["alpha", "zeta"]
    assert registry.registrations("smell") == []


def test_a_registration_describes_its_encoder() -> None:
    registry.register("sound", "spectrum", extra="audio")(Spectrum)
    (registration,) = registry.registrations("sound")
    assert registration.class_path == PATH
    assert registration.extra == "audio"
    assert registration.summary == "Bands of a sound."
    assert registration.parameters() == {"bands": "required", "width": 3, "name": "mel"}


@pytest.mark.parametrize(
    ("modality", "name", "parts"),
    [
        ("image", "cnnn", ["Unknown image encoder 'cnnn'", "Did you mean 'cnn'?", "Known: cnn"]),
        ("imag", "cnn", ["modality 'imag'", "Did you mean 'image'?"]),
        ("text", "zzz", ["Unknown text encoder 'zzz'. Known: "]),
        ("text", "no_such_package.Encoder", ["'no_such_package.Encoder'", "No module named", "class path"]),
        (
            "text",
            "multimodal_encoders.text.transformer.TextTransfomer",
            ["'multimodal_encoders.text.transformer.TextTransfomer'", "TextTransfomer", "class path"],
        ),
        ("text", "pathlib.Path", ["'pathlib.Path'", "not a subclass of multimodal.Encoder"]),
        ("text", "os.system", ["'os.system'", "not a subclass of multimodal.Encoder"]),
        ("text", ".Encoder", ["'.Encoder'", "class path"]),
        ("text", "..Encoder", ["'..Encoder'", "class path"]),
    ],
)
def test_an_unknown_name_is_rejected_with_suggestions(modality: str, name: str, parts: list[str]) -> None:
    with pytest.raises(UsageError) as error:
        registry.find_encoder(modality, name)
    assert [part for part in parts if part not in str(error.value)] == []


def test_an_unknown_setting_is_rejected_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"'cnn' has no parameter 'sise'\. Did you mean 'size'.*\? Known: .*channels"):
        registry.create("image", "cnn", sise=32)
    with pytest.raises(UsageError, match=r"has no parameter 'bnads'\. Did you mean 'bands'"):
        registry.check_settings("sound", PATH, {"width": 3, "bnads": 4})


def test_settings_of_a_constructor_with_keyword_arguments_are_checked_by_it() -> None:
    path = f"{__name__}.Open"
    assert registry.create("sound", path, width=5).settings == {"bands": 4, "width": 5}
    with pytest.raises(MultimodalError, match="wdith=5: TypeError"):
        registry.create("sound", path, wdith=5)


def test_a_missing_setting_without_a_default_is_named() -> None:
    assert registry.required_settings("sound", PATH) == ["bands"]
    with pytest.raises(UsageError, match=r"needs settings: bands\."):
        registry.create("sound", PATH, width=5)


def test_an_encoder_may_have_a_parameter_called_name() -> None:
    settings = {"bands": 5, "name": "bark"}
    encoder = registry.create("sound", PATH, **settings)
    assert encoder.settings["name"] == "bark"


def test_a_taken_name_is_rejected_and_keeps_its_class() -> None:
    registry.register("sound", "spectrum")(Spectrum)
    with pytest.raises(UsageError, match=rf"sound encoder 'spectrum' is taken by {PATH}"):
        registry.register("sound", "spectrum")(Other)
    assert registry.find_encoder("sound", "spectrum") is Spectrum


def test_a_reloaded_module_registers_its_encoder_again() -> None:
    registry.register("sound", "spectrum")(Spectrum)
    reloaded = type("Spectrum", (Spectrum,), {"__module__": __name__})
    registry.register("sound", "spectrum")(reloaded)
    assert registry.find_encoder("sound", "spectrum") is reloaded


@pytest.mark.parametrize("invalid", ["", "two words", "2d", "a.b", "a-b", "class", "None"])
def test_a_name_that_is_not_an_identifier_is_rejected(invalid: str) -> None:
    for modality, name in ((invalid, "spectrum"), ("sound", invalid)):
        with pytest.raises(UsageError, match=f"{invalid!r} must be a Python identifier, not a keyword"):
            registry.register(modality, name)


def test_the_encoders_of_an_announced_module_are_registered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sound_plugin.py").write_text(PLUGIN.format(module=__name__))
    monkeypatch.syspath_prepend(tmp_path)
    announce(monkeypatch, "sound_plugin")
    assert [r.class_path for r in registry.registrations("sound")] == ["sound_plugin.Plugged"]
    assert registry.create("sound", "plugged", bands=2).settings["bands"] == 2


@pytest.mark.parametrize(
    ("source", "error"),
    [("import no_such_package", "no_such_package"), ("1 / 0", "ZeroDivisionError"), ("1 +", "SyntaxError")],
)
def test_a_module_that_cannot_be_imported_is_named_at_every_call(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, error: str
) -> None:
    (tmp_path / "broken_plugin.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    announce(monkeypatch, "broken_plugin")
    for _ in range(2):
        with pytest.raises(MultimodalError, match=rf"'broken_plugin' cannot be imported .*{error}"):
            registry.registrations()


def test_saved_names_are_the_registered_name_for_the_modality_and_the_class_path() -> None:
    assert registry.saved_names("sound", Spectrum) == (PATH, PATH)
    registry.register("sound", "spectrum")(Spectrum)
    assert registry.saved_names("sound", Spectrum) == ("spectrum", PATH)
    assert registry.saved_names("noise", Spectrum) == ("sound.spectrum", PATH)
    assert registry.saved_names("sound", Other) == (f"{__name__}.Other",) * 2  # a subclass is another encoder


def test_a_saved_encoder_is_looked_up_by_class_path_only_if_its_name_is_unknown() -> None:
    assert registry.saved_encoder_name("sound", "spectrum", PATH) == PATH
    registry.register("sound", "spectrum")(Other)
    assert registry.saved_encoder_name("sound", "spectrum", "moved.Away") == "spectrum"
    assert registry.saved_encoder_name("noise", "spectrum", PATH) == PATH


def test_errors_of_a_constructor_are_reported_with_its_settings() -> None:
    class Broken(Spectrum):
        def __init__(self, bands: int, width: int = 3) -> None:
            super().__init__(bands // width)

    registry.register("sound", "broken")(Broken)
    assert registry.create("sound", "broken", bands=6).settings == {"bands": 6, "width": 3}
    with pytest.raises(
        MultimodalError, match=r"sound encoder 'broken' .*bands=6, width=0: ZeroDivisionError"
    ) as caught:
        registry.create("sound", "broken", bands=6, width=0)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_what_libraries_warn_of_as_they_are_imported_is_not_shown_but_other_warnings_are() -> None:
    class Imports(Spectrum):
        def __init__(self) -> None:
            warnings.warn("`torch.jit.script` is deprecated. Please switch", FutureWarning, stacklevel=1)
            warnings.warn("IProgress not found. Please update jupyter and ipywidgets.", UserWarning, stacklevel=1)
            warnings.warn("bands overlap", FutureWarning, stacklevel=1)
            super().__init__(4)

    registry.register("sound", "imports")(Imports)
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        registry.create("sound", "imports")
    assert [str(warning.message) for warning in shown] == ["bands overlap"]
