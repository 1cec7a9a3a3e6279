"""The example of registers builds, its program tests it, and an edit rebuilds what it must."""

from __future__ import annotations

import shutil

import pytest
from conftest import Project
from example_project import begun, change, copy_into

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")


@pytest.fixture
def example(empty_project: Project) -> Project:
    """Return a copy of the example, built."""
    copy_into(empty_project, "registers")
    built = empty_project.doit()
    assert (built.code, built.err) == (0, "")
    assert "5 generated, 4 compiled in " in built.out
    return empty_project


def test_the_program_finds_the_headers_right_and_a_second_run_has_nothing_to_do(
    example: Project,
) -> None:
    assert example.run("./selftest").out == "54 registers, 0 failures\n"
    dump = example.run("./selftest", "--dump").out.splitlines()
    assert len(dump) == 54
    assert "GPIOB.PIN[15]  4000045c 00000001 rw" in dump
    again = example.doit()
    assert (again.code, begun(again.out)) == (0, [])
    assert "9 up to date in " in again.out


def test_a_reset_value_rebuilds_its_header_the_table_and_the_program(example: Project) -> None:
    change(example, "peripherals/uart.json", "0x00000145", "0x00000200")
    done = example.doit()
    assert (done.code, done.err) == (0, "")
    assert begun(done.out) == [
        "compile:falcon_registers.o",
        "compile:uart.o",
        "generate:falcon_registers.c",
        "generate:uart.h",
        "selftest",
    ]
    assert "UART0.BAUD     40001008 00000200 rw" in example.run("./selftest", "--dump").out


def test_a_title_rebuilds_its_header_alone_for_the_table_does_not_read_it(
    example: Project,
) -> None:
    change(example, "peripherals/uart.json", "Serial interface", "UART")
    assert begun(example.doit("generate").out) == ["generate:uart.h"]


def test_mistakes_are_told_by_key_or_by_template_and_cost_nothing_else(example: Project) -> None:
    change(example, "peripherals/gpio.json", '"w1c"', '"w2c"')
    change(example, "peripherals/uart.json", '"0x14"', '"0x10"')
    change(example, "templates/peripheral.h.j2", "[{{ member.gap }}]", "[1]")
    done = example.doit("-c", "generate", "compile")
    assert done.code == 1
    key = 'gpio.json:7: registers[2].access: "w2c" is none of "ro", "rw", "wo", "w1c"'
    assert key in done.out
    assert "  RX: is at 0x10, though 0x14 is the first free offset\n" in done.out
    assert '  generated/timer.h:19: static assertion failed: "COMPARE"\n' in done.out
    assert "    by templates/peripheral.h.j2:24\n" in done.out
    assert '    with peripherals/timer.json:11: registers[2].offset = "0x10"\n' in done.out
