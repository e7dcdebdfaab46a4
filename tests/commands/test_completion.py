"""Tab completion: what the words are, that nothing heavy is loaded for them, and that the shells ask for them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from satdifuser.cli import main
from satdifuser.commands.completion import STORE, completed
from satdifuser.commands.shells import SCRIPTS
from satdifuser.commands.store import USAGE
from satdifuser.commands.table import COMMANDS
from satdifuser.config import compose, groups


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`satdifuser` on the path, as an installation puts it there, and a folder to be in."""
    script = tmp_path / "bin" / "satdifuser"
    script.parent.mkdir()
    script.write_text(f"#!{sys.executable}\nimport sys\nfrom satdifuser.cli import main\nsys.exit(main())\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    (tmp_path / "work" / "runs").mkdir(parents=True)
    return tmp_path / "work"


def in_bash(line: str, folder: Path) -> list[str]:
    """What bash has been given for a line with the cursor at its end, each word in angle brackets."""
    script = f"""
        eval "$(satdifuser completion bash)"
        COMP_LINE={line!r}; COMP_POINT=${{#COMP_LINE}}
        read -ra COMP_WORDS <<< "$COMP_LINE"; COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
        _satdifuser satdifuser
        printf '<%s>\\n' "${{COMPREPLY[@]}}"
        complete -p satdifuser
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=folder, check=True)
    *words, rule = done.stdout.splitlines()
    assert rule == "complete -o default -o nospace -F _satdifuser satdifuser"  # files, where nothing is known
    assert not done.stderr
    return [word for word in words if word != "<>"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_commands_groups_choices_and_settings(program: Path) -> None:
    assert in_bash("satdifuser tr", program) == ["<train >"]
    assert in_bash("satdifuser train enc", program) == ["<encoder=>", "<encoder.>"]
    assert in_bash("satdifuser train encoder=vi", program) == ["<vit >"]  # what stands before = is bash's own word
    assert in_bash("satdifuser train encoder=vit encoder.blo", program) == ["<encoder.blocks=>"]
    assert in_bash("satdifuser train run=ru", program) == []


@pytest.mark.skipif(shutil.which("fish") is None, reason="there is no fish")
def test_fish_completes_words_and_paths(program: Path) -> None:
    def in_fish(line: str) -> list[str]:
        script = f"satdifuser completion fish | source; complete -C {line!r}"
        done = subprocess.run(["fish", "-N", "-c", script], capture_output=True, text=True, cwd=program, check=True)
        return [word.partition("\t")[0] for word in done.stdout.splitlines()]

    assert in_fish("satdifuser tr") == ["train"]
    assert in_fish("satdifuser train encoder=vi") == ["encoder=vit"]
    if Path("/usr/share/fish").is_dir():  # its own functions
        assert in_fish("satdifuser train run=ru") == ["run=runs/"]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="there is no zsh")
def test_zsh_reads_the_script(program: Path) -> None:
    script = 'compdef() { print "$@"; }; eval "$(satdifuser completion zsh)"'
    done = subprocess.run(["zsh", "-f", "-c", script], capture_output=True, text=True, cwd=program, check=True)
    assert done.stdout == "_satdifuser satdifuser\n"
    assert not done.stderr


def test_every_script_asks_for_the_words_of_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    for shell, script in SCRIPTS.items():
        assert main(["completion", shell]) == 0
        assert capsys.readouterr().out == script
        assert 'completion words "$line"' in script
    assert main(["completion", "bsh"]) == 2
    assert "did you mean bash" in capsys.readouterr().err


def test_commands_verbs_and_options_are_known() -> None:
    assert completed("satdifuser ") == list(COMMANDS)
    assert set(STORE) == set(USAGE)
    assert completed("satdifuser store ver") == ["verify"]
    assert completed("satdifuser data ch") == ["check"]
    assert completed("satdifuser completion f") == ["fish"]
    assert completed("satdifuser train --c") == ["--cfg", "--config-dir"]
    assert completed("satdifuser train --config-dir ") == []
    assert completed("satdifuser nothing ") == completed("satdifuser doctor ") == []


def test_choices_and_switches_are_known(tmp_path: Path) -> None:
    assert completed("satdifuser train encoder=") == [f"encoder={name}" for name in groups()["encoder"]]
    assert completed("satdifuser compare fusion=gw,le") == ["fusion=gw,levels"]
    assert completed("satdifuser train fusion=gw,le") == []  # a list of choices is a grid's alone
    assert completed("satdifuser train resume=") == ["resume=true", "resume=false"]
    assert completed("satdifuser train 'data.root=/a b") == []
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "mine.yaml").write_text("_target_: a.B\nwidth: 3\n")
    own = f"satdifuser train --config-dir {tmp_path} encoder="
    assert "encoder=mine" in completed(own)
    assert completed(f"{own}mine encoder.") == ["encoder.width="]


def test_every_setting_that_is_offered_is_one() -> None:
    """Against the composed configuration itself, down to its leaves."""
    for chosen in ([], ["encoder=vit", "adapter=deflect", "decoder=upernet", "trainer=quick"]):
        plain = compose("train", chosen).plain()
        offered = [word for word in completed(" ".join(["satdifuser train", *chosen, "encoder."])) if "." in word]
        assert len(offered) > 10
        for name in offered:
            held = plain
            for key in name.removesuffix("=").split("."):
                assert key in held, name
                held = held[key]


def test_a_press_of_tab_loads_nothing_heavy() -> None:
    code = (
        "import sys; from satdifuser.cli import main; main(['completion', 'words', 'satdifuser train encoder=vit e']);"
        "heavy = {'torch', 'hydra', 'omegaconf', 'pydantic', 'rich', 'numpy'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "encoder=\nencoder.\n"
