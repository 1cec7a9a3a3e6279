/* Written by hand: what a firmware would do with the headers, and a test that runs anywhere. */
#include <stdio.h>
#include <string.h>

#include "falcon.h"

static int failures;

static void check(int holds, const char *what)
{
    if (!holds) {
        failures++;
        printf("failed: %s\n", what);
    }
}

#define CHECK(what) check((what), #what)

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--dump") == 0) {
        for (size_t i = 0; i < falcon_register_count; i++) {
            const falcon_register_t *one = &falcon_registers[i];
            printf("%-14s %08lx %08lx %s\n", one->name, (unsigned long)one->address,
                   (unsigned long)one->reset, one->access);
        }
        return 0;
    }
    CHECK(UART_CTRL_PARITY_MASK == 6);
    CHECK((UART_CTRL_PARITY_ODD & ~UART_CTRL_PARITY_MASK) == 0);
    CHECK(TIMER_CTRL_PRESCALER_MASK == 0xFFFF0000u);
    CHECK(offsetof(gpio_t, PIN[15]) == 0x5C);
    CHECK((uintptr_t)&UART1->BAUD == 0x40001408);
    CHECK(TIMER0_IRQ == 8);
    for (size_t i = 1; i < falcon_register_count; i++)
        CHECK(falcon_registers[i - 1].address < falcon_registers[i].address);
    printf("%lu registers, %d failures\n", (unsigned long)falcon_register_count, failures);
    return failures != 0;
}
