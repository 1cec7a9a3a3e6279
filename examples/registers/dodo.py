"""Registers of a microcontroller, from JSON to C: the compiler checks them, a program uses them."""

from pathlib import Path

from codegen_tasks import Codegen, PatternError

codegen = Codegen(environment={"trim_blocks": True, "lstrip_blocks": True})

# A header for each kind of peripheral. Compiling it checks the layout that it asserts.
codegen.rule(
    "peripheral",
    template="peripheral.h.j2",
    patterns="peripherals/*.json",
    target="{stem}.h",
    schema="schemas/peripheral.schema.json",
    compile="cc",
)
# For the chip, a header that includes them, and a table of all registers.
codegen.rule("chip", template="chip.h.j2", patterns="chips/*.json", target="{stem}.h")
codegen.rule(
    "table",
    template="registers.c.j2",
    patterns="chips/*.json",
    target="{stem}_registers.c",
    compile="cc",
)


@codegen.filter
def u32(number):
    """Return 0x0000001Fu for 31 or "0x1F"."""
    return f"0x{_int(number):08X}u"


@codegen.filter
def mask(bits):
    """Return the mask of a field: 0x0000000Eu for bits 1 to 3."""
    low, high = bits
    return u32((1 << high + 1) - (1 << low))


@codegen.filter
def offset_by(address, offset, index):
    """Return the address of a register, or of one in an array of them."""
    return u32(_int(address) + _int(offset) + 4 * index)


@codegen.filter
def layout(registers, size):
    """Return members of a struct: the registers, and gaps of so many words between them."""
    members, end = [], 0
    for register in [*registers, {"name": "the end", "offset": size}]:
        gap = _int(register["offset"]) - end
        if gap < 0 or gap % 4:
            what = f"is at {register['offset']}, though {end:#04x} is the first free offset"
            raise PatternError(register["name"], what)
        if gap:
            members.append({"gap": gap // 4, "at": end})
        members.append(register)
        end += gap + 4 * register.get("count", 1)
    return members[:-1]


def _int(number):
    return number if isinstance(number, int) else int(number, 0)


def task_selftest():
    """Link a program with the table, and run it: a task of doit beside ours."""
    headers = [f"generated/{path.stem}.h" for path in sorted(Path("peripherals").glob("*.json"))]
    table = "generated/falcon_registers.o"
    link = "cc -std=c11 -Wall -Wextra -Igenerated -o selftest"
    return {
        "file_dep": ["src/main.c", table, "generated/falcon.h", *headers],
        "actions": [f"{link} src/main.c {table}", "./selftest"],
        "targets": ["selftest"],
        "clean": True,
    }


DOIT_CONFIG = codegen.doit_config
