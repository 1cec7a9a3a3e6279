"""The pattern library, from TOML to light: what `doit` compiles is run and its frames are checked.

The JavaScript runs in a folder without any TypeScript. What a frame should be is computed here,
from the numbers in the pattern files, by other means than the templates use.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

from codegen_tasks import PatternError

ROOT = Path(__file__).parent.parent
PATTERNS = Path("templates/patterns")
SEARCH_PATH = os.path.dirname(sys.executable) + os.pathsep + os.environ.get("PATH", "")
DENO = shutil.which("deno", path=SEARCH_PATH)
#: What the generated code does, or looks like: it is the same whatever Python has made it.
SAME_JAVASCRIPT = pytest.mark.one_python

# A spectrum is split and merged again: two lights, one blurred, on top of each other and mixed.
AURORA = """
title = "Aurora"
description = "Two veils over each other."

[[nodes]]
id = "sound"
kind = "spectrum"

[[nodes]]
id = "veil"
kind = "interpolate"
inputs.spectrum = "sound"

[[nodes]]
id = "haze"
kind = "blur"
inputs.levels = "veil"
params.radius = 2

[[nodes]]
id = "green"
kind = "colorize"
inputs.levels = "veil"
params.color = "#00ff00"

[[nodes]]
id = "blue"
kind = "colorize"
inputs.levels = "haze"
params.color = "#0000ff"

[[nodes]]
id = "both"
kind = "add"
inputs.a = "green"
inputs.b = "blue"

[[nodes]]
id = "pale"
kind = "mix"
inputs.a = "both"
inputs.b = "green"
params.balance = 0.25

[[nodes]]
id = "strip"
kind = "output"
inputs.colors = "pale"
"""

# The same graph: the nodes upside down in the file.
HEAD, *TABLES = AURORA.split("\n[[nodes]]\n")
AUSTRALIS = "\n\n[[nodes]]\n".join([HEAD.replace("Aurora", "Australis"), *reversed(TABLES)])


def make_project(folder):
    """Copy what a user of the library has: the declaration and the templates."""
    for name in ("dodo.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "templates", folder / "templates")
    return folder


def doit(project, *arguments):
    """Run doit in a project, as a user would."""
    return subprocess.run(
        [sys.executable, "-m", "doit", *arguments],
        cwd=project,
        env={**os.environ, "PATH": SEARCH_PATH, "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )


class Player:
    """Plays frames on the compiled patterns of a project."""

    def __init__(self, project, folder):
        self.folder = folder
        folder.mkdir()
        for compiled in (project / "generated").glob("*.js"):
            shutil.copy(compiled, folder)
        shutil.copy(ROOT / "tests" / "frames.mjs", folder)

    def _run(self, scene):
        done = subprocess.run(
            [DENO, "run", "--no-config", "--no-lock", "--no-prompt", "frames.mjs"],
            cwd=self.folder,
            env={**os.environ, "DENO_NO_UPDATE_CHECK": "1", "NO_COLOR": "1"},
            input=json.dumps(scene),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def titles(self):
        return self._run({})

    def play(self, pattern, count, frames, **parameters):
        """Return the strip after each frame: frames x LEDs x (red, green, blue)."""
        scene = {"pattern": pattern, "count": count, "frames": frames, "parameters": parameters}
        return self._run(scene)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Build the library as it is, with a branching pattern more, in two orders."""
    folder = make_project(tmp_path_factory.mktemp("project"))
    (folder / PATTERNS / "aurora.toml").write_text(AURORA)
    (folder / PATTERNS / "australis.toml").write_text(AUSTRALIS)
    built = doit(folder)
    assert built.returncode == 0, built.stdout
    return folder


@pytest.fixture(scope="module")
def player(project, tmp_path_factory):
    return Player(project, tmp_path_factory.mktemp("light") / "compiled")


@pytest.fixture(scope="module")
def dodo():
    """Import the declaration."""
    spec = importlib.util.spec_from_file_location("dodo", ROOT / "dodo.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def params(stem, node):
    """Read what a pattern file sets in a node."""
    nodes = tomllib.loads((ROOT / PATTERNS / f"{stem}.toml").read_text())["nodes"]
    return next(it["params"] for it in nodes if it["id"] == node)


def channels(color):
    """Red, green and blue of #rrggbb, 0 to 1."""
    return [byte / 255 for byte in bytes.fromhex(color.removeprefix("#"))]


def brightness(strip):
    """One number for each LED."""
    return [sum(led) for led in strip]


def near(expected):
    """Equal as far as 32-bit floats can be."""
    return pytest.approx(expected, abs=1e-5)


# --- bloom ------------------------------------------------------------------------------------


@SAME_JAVASCRIPT
@pytest.mark.parametrize("count", [1, 2, 60, 61])
def test_bloom_is_symmetric_about_the_centre(player, count):
    (strip,) = player.play("bloom", count, [{"spectrum": [1, 0.5, 0.25, 0]}])
    assert strip == strip[::-1]
    assert max(brightness(strip)) > 0


@SAME_JAVASCRIPT
def test_bloom_shows_the_loudness_of_its_band_brightest_in_the_centre(player):
    count, spectrum = 5, [0.6, 0.2, 1, 1, 1, 1, 1, 1]
    bass, tint, out = params("bloom", "bass"), params("bloom", "tint"), params("bloom", "strip")
    band = spectrum[: round(bass["high"] * len(spectrum))]
    loudness = sum(band) / len(band)
    # five LEDs folded: 4 2 0 2 4
    levels = [loudness * (1 - source / count) ** bass["falloff"] for source in (4, 2, 0, 2, 4)]
    expected = [
        [channel * level * out["brightness"] for channel in channels(tint["color"])]
        for level in levels
    ]
    (strip,) = player.play("bloom", count, [{"spectrum": spectrum}])
    assert [near(led) for led in expected] == strip
    assert max(strip) == strip[2]


@SAME_JAVASCRIPT
def test_bloom_decays_by_its_factor_per_frame_when_it_is_silent(player):
    decay = params("bloom", "glow")["decay"]
    silence = [{"spectrum": [0, 0, 0, 0]}] * 20
    strips = player.play("bloom", 31, [{"spectrum": [1, 1, 1, 1]}, *silence])
    for age, strip in enumerate(strips):
        assert brightness(strip) == near([level * decay**age for level in brightness(strips[0])])


@SAME_JAVASCRIPT
def test_bloom_is_not_dimmed_by_a_softer_note(player):
    decay = params("bloom", "glow")["decay"]
    loud, soft = player.play("bloom", 31, [{"spectrum": [1, 1, 1, 1]}, {"spectrum": [0.5] * 4}])
    assert brightness(soft) == near([level * decay for level in brightness(loud)])


# --- spectrum ---------------------------------------------------------------------------------


def gradient(stops, level):
    """Find the color of a level by walking along the stops."""
    level = min(1, max(0, level)) * (len(stops) - 1)
    for a, b in pairwise(stops):
        if level <= 1:
            return [x * (1 - level) + y * level for x, y in zip(a, b, strict=True)]
        level -= 1
    return stops[-1]


@SAME_JAVASCRIPT
def test_spectrum_follows_its_bins_through_gain_and_palette(player):
    bins = [0, 0.8, 0.1, 0.5, 0.3]
    gain, palette = params("spectrum", "bars")["gain"], params("spectrum", "heat")["colors"]
    # 9 LEDs for 5 bins: every second LED is a bin, the others lie half way between two
    levels = [0, 0.4, 0.8, 0.45, 0.1, 0.3, 0.5, 0.4, 0.3]
    stops = [channels(color) for color in palette]
    expected = [gradient(stops, gain * level) for level in levels]
    (strip,) = player.play("spectrum", 9, [{"spectrum": bins}])
    assert [near(led) for led in expected] == strip


@SAME_JAVASCRIPT
def test_spectrum_has_no_memory(player):
    frames = [{"spectrum": [1, 1, 1]}, {"spectrum": [0.2, 0, 0.7]}]
    assert player.play("spectrum", 7, frames)[1:] == player.play("spectrum", 7, frames[1:])


@SAME_JAVASCRIPT
def test_parameters_are_options_of_the_class(player):
    spectrum = {"spectrum": [0, 1, 0.2, 0.6]}
    (forward,) = player.play("spectrum", 8, [spectrum])
    (reverse,) = player.play("spectrum", 8, [spectrum], barsReverse=True)
    assert reverse == forward[::-1] != forward


# --- pulse ------------------------------------------------------------------------------------

DT = 0.025  # seconds a frame


@pytest.fixture(scope="module")
def pulse(player):
    """Play one beat on 121 LEDs: the brightness in each frame, 1 when full."""
    strips = player.play("pulse", 121, [{"dt": DT, "beat": 1}] + [{"dt": DT}] * 70)
    full = sum(channels(params("pulse", "tint")["color"]))
    return [[level / full for level in brightness(strip)] for strip in strips]


@SAME_JAVASCRIPT
def test_pulse_is_symmetric_about_the_centre(pulse):
    for levels in pulse:
        assert levels == near(levels[::-1])


@SAME_JAVASCRIPT
def test_pulse_front_and_crest_travel_outward_at_its_speed(pulse):
    ring = params("pulse", "ring")
    for frame, levels in enumerate(pulse[:40]):
        half = levels[60:]  # from the centre outward
        lit = [distance for distance, level in enumerate(half) if level > 1e-6]
        front = ring["speed"] * frame * DT
        assert max(lit, default=0) == pytest.approx(front, abs=1.001)
        crest = ring["speed"] * (frame * DT - ring["attack"])
        if 0 <= crest <= 60:
            assert half.index(max(half)) == pytest.approx(crest, abs=0.501)
            assert max(half) == pytest.approx(1, abs=0.1)


@SAME_JAVASCRIPT
@pytest.mark.parametrize("distance", [0, 15, 60])
def test_pulse_rises_in_its_attack_and_falls_in_its_decay(pulse, distance):
    ring = params("pulse", "ring")
    struck = distance / ring["speed"]
    times = [struck, struck + ring["attack"], struck + ring["attack"] + ring["decay"]]
    for frame, levels in enumerate(pulse):
        now = frame * DT
        rise = (now - times[0]) / (times[1] - times[0])
        fall = (times[2] - now) / (times[2] - times[1])
        assert levels[60 + distance] == near(max(0, min(rise, fall)))


@SAME_JAVASCRIPT
def test_pulse_goes_out_and_a_weaker_beat_makes_a_weaker_ring(player, pulse):
    assert max(pulse[-1]) == 0
    full, half = (
        player.play("pulse", 21, [{"beat": strength}] + [{}] * 10) for strength in (1, 0.5)
    )
    for a, b in zip(full, half, strict=True):
        assert brightness(b) == near([level / 2 for level in brightness(a)])


@SAME_JAVASCRIPT
def test_pulse_carries_several_rings_at_once(player):
    beats = [{"dt": DT, "beat": int(frame % 8 == 0)} for frame in range(17)]
    levels = brightness(player.play("pulse", 121, beats)[-1])[60:]
    rising = [levels[i] > levels[i - 1] for i in range(1, len(levels))]
    crests = sum(up and not next_up for up, next_up in pairwise(rising))
    assert crests == 2  # and a third has just begun


# --- a fourth pattern, and its graph ----------------------------------------------------------


@SAME_JAVASCRIPT
def test_a_pattern_file_is_all_it_takes_to_register_a_pattern(player):
    assert player.titles() == {
        "aurora": "Aurora",
        "australis": "Australis",
        "bloom": "Bloom",
        "pulse": "Pulse",
        "spectrum": "Spectrum",
    }


@SAME_JAVASCRIPT
def test_a_graph_may_branch_and_merge(player):
    bins = [0, 0.25, 1, 0.5, 0.5, 0.125, 0]
    reach = [bins[max(0, i - 2) : i + 3] for i in range(7)]
    expected = [[0, bins[i], 0.75 * sum(reach[i]) / len(reach[i])] for i in range(7)]
    (strip,) = player.play("aurora", 7, [{"spectrum": bins}])
    assert [near(led) for led in expected] == strip


@SAME_JAVASCRIPT
def test_the_order_of_nodes_in_the_file_does_not_matter(player):
    frames = [{"spectrum": [0.1, 1, 0.3]}, {"spectrum": [0.7, 0, 0.2]}]
    assert player.play("aurora", 12, frames) == player.play("australis", 12, frames)


def test_nodes_that_are_ready_stay_in_file_order(dodo):
    nodes = tomllib.loads(AURORA)["nodes"]
    assert dodo.ordered_ids("aurora.toml", nodes) == [node["id"] for node in nodes]
    nodes = tomllib.loads(AUSTRALIS)["nodes"]
    in_order = ["sound", "veil", "green", "haze", "blue", "both", "pale", "strip"]
    assert dodo.ordered_ids("australis.toml", nodes) == in_order


def test_defaults_of_the_catalogue_fill_in_what_a_pattern_leaves_out(dodo):
    graph = graph_of(dodo, tomllib.loads(AURORA)["nodes"])
    veil = next(node for node in graph if node.id == "veil")
    assert [(it.field, it.value) for it in veil.parameters] == [
        ("veilGain", "1.0"),
        ("veilCurve", '"linear"'),
        ("veilReverse", "false"),
    ]


# --- the generated code -----------------------------------------------------------------------


@SAME_JAVASCRIPT
def test_compiled_code_imports_javascript_only(project):
    modules = list((project / "generated").glob("*.js"))
    assert len(modules) == 7
    for module in modules:
        for source in re.findall(r'from "(.*?)"', module.read_text()):
            assert re.fullmatch(r"\./\w+\.js", source)


@SAME_JAVASCRIPT
def test_parameters_are_typed_fields_documented_with_unit_and_range(project):
    bloom = (project / "generated" / "bloom.ts").read_text()
    assert "0 to 1 per frame. */\n  glowDecay: number = 0.92;\n" in bloom
    pulse = (project / "generated" / "pulse.ts").read_text()
    assert "1 to 1000 LEDs per second. */\n  ringSpeed: number = 60.0;\n" in pulse


def test_generated_code_is_the_same_whenever_and_wherever_it_is_made(project, tmp_path):
    again = make_project(tmp_path)
    assert doit(again).returncode == 0
    for stem in ("bloom", "pulse", "runtime", "spectrum"):
        made = [(it / "generated" / f"{stem}.ts").read_bytes() for it in (project, again)]
        assert made[0] == made[1]
        assert str(project).encode() not in made[0]


@SAME_JAVASCRIPT
def test_generated_code_is_laid_out_as_deno_formats_it(project):
    modules = [f"generated/{it.name}" for it in (project / "generated").glob("*.ts")]
    command = [DENO, "fmt", "--no-config", "--check", *modules]
    formatted = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert formatted.returncode == 0, formatted.stderr


@SAME_JAVASCRIPT
def test_generated_code_has_no_stray_blanks(project):
    for module in (project / "generated").glob("*.ts"):
        text = module.read_text()
        assert text.endswith("\n")
        assert "\n\n\n" not in text
        assert not re.search(r"[ \t]\n", text)
        assert max(map(len, text.splitlines())) <= 100


def test_every_kind_of_the_catalogue_has_a_template_and_every_template_a_kind(dodo):
    templates = {path.name.removesuffix(".ts.j2") for path in ROOT.glob("templates/nodes/*.ts.j2")}
    assert templates == set(catalogue()["kinds"])


# --- a node of every kind, and what can be wrong with one -------------------------------------

SOURCES = {"spectrum": "sound", "trigger": "beat", "levels": "veil", "colors": "light"}


def catalogue():
    return tomllib.loads((ROOT / "templates" / "nodes.toml").read_text())


def graph_of(dodo, nodes):
    return dodo.in_order({"stem": "mine", "path": "mine.toml"}, nodes, catalogue())


def small_graph(**changes):
    """Return sound - veil - light - strip, with changes to `veil` or a node more: id = table."""
    nodes = {
        "sound": {"kind": "spectrum"},
        "veil": {"kind": "interpolate", "inputs": {"spectrum": "sound"}},
        "light": {"kind": "colorize", "inputs": {"levels": "veil"}},
        "strip": {"kind": "output", "inputs": {"colors": "light"}},
    }
    nodes.update(changes)
    return [{"id": name, **node} for name, node in nodes.items() if node]


@SAME_JAVASCRIPT
def test_code_of_every_kind_compiles(tmp_path):
    nodes = small_graph(beat={"kind": "beat"})
    for name, kind in catalogue()["kinds"].items():
        if "output" in kind:
            inputs = {port: SOURCES[type_] for port, type_ in kind.get("inputs", {}).items()}
            nodes.append({"id": f"a{name}", "kind": name, "inputs": inputs})
    project = make_project(tmp_path)
    lines = ['title = "All */ kinds"', 'description = "\\"Every\\" kind, */ and more."']
    for node in nodes:
        lines += ["[[nodes]]", f'id = "{node["id"]}"', f'kind = "{node["kind"]}"']
        lines += [f'inputs.{port} = "{it}"' for port, it in node.get("inputs", {}).items()]
    (project / PATTERNS / "soft-kinds.toml").write_text("\n".join(lines))
    built = doit(project)
    assert built.returncode == 0, built.stdout
    assert "export class SoftKindsPattern " in (project / "generated/soft-kinds.ts").read_text()


VEIL = {"kind": "interpolate", "inputs": {"spectrum": "sound"}}

FAULTS = {
    "cycle": (
        {
            "veil": {"kind": "blur", "inputs": {"levels": "glow"}},
            "glow": {"kind": "persistence", "inputs": {"levels": "veil"}},
        },
        "mine.toml: node 'veil': is in a cycle, veil -> glow -> veil",
        "no node can read what comes of its own output",
    ),
    "self": (
        {"veil": {"kind": "blur", "inputs": {"levels": "veil"}}},
        "mine.toml: node 'veil': is in a cycle, veil -> veil",
        "no node can read what comes of its own output",
    ),
    "unknown kind": (
        {"veil": {**VEIL, "kind": "interpolat"}},
        "mine.toml: node 'veil': unknown kind 'interpolat'",
        "did you mean 'interpolate'?",
    ),
    "no kind": ({"veil": {"inputs": {}}}, "mine.toml: node 'veil': has no kind", None),
    "unknown key": (
        {"veil": {**VEIL, "param": {}}},
        "mine.toml: node 'veil': unknown key 'param'",
        "did you mean 'params'?",
    ),
    "inputs as text": (
        {"veil": {**VEIL, "inputs": "sound"}},
        "mine.toml: node 'veil': inputs is not a table",
        "write inputs.<name> = ...",
    ),
    "unknown port": (
        {"veil": {**VEIL, "inputs": {"spektrum": "sound"}}},
        "mine.toml: node 'veil': kind 'interpolate' has no input 'spektrum'",
        "did you mean 'spectrum'?",
    ),
    "unknown source": (
        {"veil": {**VEIL, "inputs": {"spectrum": "sounds"}}},
        "mine.toml: node 'veil': input 'spectrum' reads an unknown node 'sounds'",
        "did you mean 'sound'?",
    ),
    "wrong type of port": (
        {"veil": {**VEIL, "inputs": {"spectrum": "light"}}},
        "mine.toml: node 'veil': input 'spectrum' takes spectrum, but node 'light' gives colors",
        "spectrum is what these kinds give: spectrum",
    ),
    "unconnected": (
        {"veil": {"kind": "interpolate"}},
        "mine.toml: node 'veil': input 'spectrum' is not connected",
        'add inputs.spectrum = "sound"',
    ),
    "unknown parameter": (
        {"veil": {**VEIL, "params": {"gian": 2}}},
        "mine.toml: node 'veil': kind 'interpolate' has no parameter 'gian'",
        "did you mean 'gain'?",
    ),
    "out of range": (
        {"veil": {**VEIL, "params": {"gain": 17}}},
        "mine.toml: node 'veil': parameter 'gain' is 17, outside 0 to 16 times",
        None,
    ),
    "not a number": (
        {"veil": {**VEIL, "params": {"gain": float("nan")}}},
        "mine.toml: node 'veil': parameter 'gain' is nan, outside 0 to 16 times",
        None,
    ),
    "true for a number": (
        {"veil": {**VEIL, "params": {"gain": True}}},
        "mine.toml: node 'veil': parameter 'gain' is true, not a number",
        None,
    ),
    "unknown choice": (
        {"veil": {**VEIL, "params": {"curve": "smoth"}}},
        "mine.toml: node 'veil': parameter 'curve' cannot be 'smoth'",
        "did you mean 'smooth'?",
    ),
    "fraction for an integer": (
        {"haze": {"kind": "blur", "inputs": {"levels": "veil"}, "params": {"radius": 1.5}}},
        "mine.toml: node 'haze': parameter 'radius' is 1.5, not a whole number",
        None,
    ),
    "color by name": (
        {"tint": {"kind": "colorize", "inputs": {"levels": "veil"}, "params": {"color": "red"}}},
        "mine.toml: node 'tint': parameter 'color' is \"red\", not a color like \"#ff8000\"",
        None,
    ),
    "one color for a gradient": (
        {
            "heat": {
                "kind": "palette",
                "inputs": {"levels": "veil"},
                "params": {"colors": ["#ffffff"]},
            }
        },
        "mine.toml: node 'heat': parameter 'colors' is 1, outside 2 to 16 colors",
        None,
    ),
    "two strips": (
        {"other": {"kind": "output", "inputs": {"colors": "light"}}},
        "mine.toml: node 'other': writes to the strip, as node 'strip' does already",
        "merge them with 'add' or 'mix'",
    ),
    "no strip": (
        {"strip": None},
        "mine.toml: no node writes to the strip",
        "add one of kind 'output'",
    ),
    "id in capitals": (
        {"Glow": {"kind": "beat"}},
        "mine.toml: node 5: id 'Glow' is not one lower-case word",
        None,
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_by_pattern_and_node(dodo, fault):
    changes, message, hint = FAULTS[fault]
    with pytest.raises(PatternError) as told:
        graph_of(dodo, small_graph(**changes))
    where_what, *rest = str(told.value).splitlines()
    assert where_what == message
    if hint:
        assert [line.strip() for line in rest] == [f"hint: {hint}"]


def test_two_nodes_cannot_share_an_id(dodo):
    nodes = [*small_graph(), {"id": "veil", "kind": "beat"}]
    with pytest.raises(PatternError, match=r"^mine\.toml: node 'veil': has the id of another node"):
        graph_of(dodo, nodes)


def test_single_brackets_around_nodes_are_told(dodo):
    with pytest.raises(PatternError, match=r"^mine\.toml: nodes are not a list of tables"):
        graph_of(dodo, {"id": "sound", "kind": "spectrum"})


def test_a_file_name_that_makes_no_class_is_told(dodo):
    with pytest.raises(PatternError, match=r"^p/3d\.toml: '3d' makes no class name"):
        dodo.class_name({"stem": "3d", "path": "p/3d.toml"})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'inputs.levels = "bass"',
            'inputs.levels = "glow"',
            "templates/patterns/bloom.toml: node 'glow': is in a cycle, glow -> glow",
        ),
        (
            'kind = "mirror"',
            'kind = "miror"',
            "templates/patterns/bloom.toml: node 'fold': unknown kind 'miror'",
        ),
        (
            'inputs.colors = "tint"',
            'inputs.colours = "tint"',
            "templates/patterns/bloom.toml: node 'fold': kind 'mirror' has no input 'colours'",
        ),
    ],
    ids=["cycle", "kind", "port"],
)
def test_doit_fails_with_the_fault_and_makes_nothing_of_the_pattern(tmp_path, old, new, message):
    project = make_project(tmp_path)
    bloom = project / PATTERNS / "bloom.toml"
    bloom.write_text(bloom.read_text().replace(old, new))
    failed = doit(project)
    assert failed.returncode == 1
    assert message in failed.stdout
    assert "Traceback" not in failed.stdout
    assert not (project / "generated" / "bloom.ts").exists()
