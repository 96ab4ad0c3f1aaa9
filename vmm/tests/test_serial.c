// SPDX-License-Identifier: MIT
/*
 * The serial port, as a PC's drivers use it; what Linux's 8250 driver probes it with, step by step.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <linux/serial_reg.h>

#include "serial.h"

static struct serial serial;
static char output[64];
static unsigned output_bytes;
static bool line;
static unsigned raises;

static void put(void *context, uint8_t byte)
{
	(void)context;
	assert_true(output_bytes < sizeof(output));
	output[output_bytes++] = (char)byte;
}

static void set(void *context, bool raised)
{
	(void)context;
	assert_int_not_equal(line, raised);
	line = raised;
	raises += raised;
}

static int begin(void **state)
{
	(void)state;
	output_bytes = 0;
	line = false;
	raises = 0;
	serial_init(&serial, (struct serial_output){ .put = put },
		    (struct device_line){ .set = set });
	return 0;
}

static uint8_t in(unsigned offset)
{
	struct device_access access = { .offset = offset, .bytes = 1 };

	serial_type.access(&serial, &access);
	return (uint8_t)access.value;
}

static void out(unsigned offset, unsigned value)
{
	struct device_access access = {
		.offset = offset, .bytes = 1, .write = true, .value = value
	};

	serial_type.access(&serial, &access);
}

static void type(const char *text)
{
	assert_int_equal(serial_input(&serial, (const uint8_t *)text, strlen(text)), strlen(text));
}

/* FIFOs on with a trigger level, interrupts connected and enabled. */
static void start(unsigned trigger, unsigned interrupts)
{
	out(UART_FCR, UART_FCR_ENABLE_FIFO | trigger);
	out(UART_MCR, UART_MCR_DTR | UART_MCR_RTS | UART_MCR_OUT2);
	out(UART_IER, interrupts);
}

static void it_is_as_after_a_reset(void **state)
{
	(void)state;
	assert_int_equal(in(UART_IER), 0);
	assert_int_equal(in(UART_IIR), UART_IIR_NO_INT);
	assert_int_equal(in(UART_LCR), 0);
	assert_int_equal(in(UART_MCR), 0);
	assert_int_equal(in(UART_LSR), UART_LSR_THRE | UART_LSR_TEMT);
	assert_int_equal(in(UART_MSR), UART_MSR_CTS | UART_MSR_DSR | UART_MSR_DCD);
	assert_int_equal(in(UART_RX), 0);
	assert_false(line);
}

static void the_divisor_hides_data_and_interrupts(void **state)
{
	(void)state;
	out(UART_IER, UART_IER_RDI);
	out(UART_LCR, UART_LCR_DLAB | UART_LCR_WLEN8);
	out(UART_DLL, 0x34);
	out(UART_DLM, 0x12);
	assert_int_equal(in(UART_DLL), 0x34);
	assert_int_equal(in(UART_DLM), 0x12);
	assert_int_equal(output_bytes, 0);
	out(UART_LCR, UART_LCR_WLEN8);
	assert_int_equal(in(UART_IER), UART_IER_RDI);
	out(UART_SCR, 0xa5);
	assert_int_equal(in(UART_SCR), 0xa5);
}

static void text_goes_out(void **state)
{
	(void)state;
	for (const char *at = "hello"; *at; at++)
		out(UART_TX, (unsigned char)*at);
	assert_int_equal(output_bytes, 5);
	assert_memory_equal(output, "hello", 5);
	assert_int_equal(in(UART_LSR), UART_LSR_THRE | UART_LSR_TEMT);
}

/* autoconfig() of drivers/tty/serial/8250/8250_port.c must find a 16550A, and nothing better. */
static void linux_finds_a_16550A(void **state)
{
	(void)state;
	out(UART_IER, 0);
	assert_int_equal(in(UART_IER) & 0x0f, 0);
	out(UART_IER, 0x0f);
	assert_int_equal(in(UART_IER) & 0x0f, 0x0f);
	out(UART_IER, 0);
	/* Loopback: what RTS and OUT2 say comes back as CTS and DCD. */
	out(UART_MCR, UART_MCR_LOOP | UART_MCR_OUT2 | UART_MCR_RTS);
	assert_int_equal(in(UART_MSR) & 0xf0, UART_MSR_DCD | UART_MSR_CTS);
	out(UART_MCR, 0);
	/* The extended registers of a 16650. */
	out(UART_LCR, UART_LCR_CONF_MODE_B);
	out(UART_EFR, 0);
	out(UART_LCR, 0);
	out(UART_FCR, UART_FCR_ENABLE_FIFO);
	assert_int_equal(in(UART_IIR) >> 6, 3);
	out(UART_LCR, UART_LCR_CONF_MODE_A);
	assert_int_not_equal(in(UART_EFR), 0);
	out(UART_LCR, UART_LCR_CONF_MODE_B);
	assert_int_not_equal(in(UART_EFR), 0);
	/* National's bank at 0xe0, whose bit for loopback would be set. */
	out(UART_LCR, 0xe0);
	assert_int_equal(in(2) & UART_MCR_LOOP, 0);
	out(UART_LCR, 0);
	out(UART_MCR, UART_MCR_LOOP);
	out(UART_LCR, 0xe0);
	assert_int_equal(in(2) & UART_MCR_LOOP, 0);
	out(UART_LCR, 0);
	out(UART_MCR, 0);
	/* The FIFOs of 64 bytes of a 16750. */
	out(UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR7_64BYTE);
	assert_int_equal(in(UART_IIR) >> 5, 6);
	out(UART_LCR, UART_LCR_CONF_MODE_A);
	out(UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR7_64BYTE);
	assert_int_equal(in(UART_IIR) >> 5, 6);
	out(UART_LCR, 0);
	/* The enable bit of an XScale's. */
	out(UART_IER, UART_IER_UUE);
	assert_int_equal(in(UART_IER) & UART_IER_UUE, 0);
}

/*
 * serial8250_do_startup() tests whether enabling the interrupt twice reports an empty transmitter
 * twice.
 */
static void linux_trusts_the_transmitter_interrupt(void **state)
{
	(void)state;
	for (unsigned round = 0; round < 2; round++) {
		out(UART_IER, UART_IER_THRI);
		assert_int_equal(in(UART_IIR) & 0x0f, UART_IIR_THRI);
		assert_int_equal(in(UART_IIR) & 0x0f, UART_IIR_NO_INT);
		out(UART_IER, 0);
	}
	out(UART_IER, UART_IER_THRI);
	assert_int_equal(in(UART_LSR) & UART_LSR_TEMT, UART_LSR_TEMT);
	assert_int_equal(in(UART_IIR) & UART_IIR_NO_INT, 0);
}

static void the_transmitter_interrupts_after_each_filling(void **state)
{
	(void)state;
	start(UART_FCR_TRIGGER_1, UART_IER_THRI);
	assert_true(line);
	assert_int_equal(in(UART_IIR) & 0x0f, UART_IIR_THRI);
	assert_false(line);
	out(UART_TX, 'a');
	assert_true(line);
	/* Nothing changes for what is enabled already. */
	in(UART_IIR);
	out(UART_IER, UART_IER_THRI);
	assert_false(line);
	out(UART_TX, 'b');
	out(UART_IER, 0);
	assert_false(line);
	assert_int_equal(raises, 3);
}

static void without_out2_there_is_no_interrupt(void **state)
{
	(void)state;
	out(UART_IER, UART_IER_THRI);
	assert_int_equal(in(UART_MSR) & 0x0f, 0);
	assert_false(line);
	out(UART_MCR, UART_MCR_OUT2);
	assert_true(line);
	out(UART_MCR, UART_MCR_OUT2 | UART_MCR_LOOP);
	assert_false(line);
}

static void the_receiver_interrupts_by_level_and_timeout(void **state)
{
	(void)state;
	start(UART_FCR_TRIGGER_4, UART_IER_RDI);
	type("abc");
	assert_true(line);
	assert_int_equal(in(UART_IIR) & 0x0f, UART_IIR_RX_TIMEOUT);
	type("d");
	assert_int_equal(in(UART_IIR) & 0x0f, UART_IIR_RDI);
	assert_int_equal(in(UART_RX), 'a');
	assert_int_equal(in(UART_IIR) & 0x0f, UART_IIR_RX_TIMEOUT);
	for (const char *at = "bcd"; *at; at++) {
		assert_int_equal(in(UART_LSR) & UART_LSR_DR, UART_LSR_DR);
		assert_int_equal(in(UART_RX), *at);
	}
	assert_int_equal(in(UART_LSR) & UART_LSR_DR, 0);
	assert_false(line);
}

static void input_waits_for_room_in_the_fifo(void **state)
{
	static uint8_t bytes[2 * SERIAL_INPUT];

	(void)state;
	for (unsigned i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 7);
	start(UART_FCR_TRIGGER_14, UART_IER_RDI | UART_IER_RLSI);
	/* The queue is filled first, and 16 of it are in the FIFO then. */
	assert_int_equal(serial_input(&serial, bytes, sizeof(bytes)), SERIAL_INPUT);
	assert_int_equal(serial_input(&serial, bytes + SERIAL_INPUT, 100), SERIAL_FIFO);
	assert_int_equal(serial_input(&serial, bytes, 1), 0);
	assert_false(serial_input_break(&serial));
	for (unsigned i = 0; i < SERIAL_INPUT + SERIAL_FIFO; i++)
		assert_int_equal(in(UART_RX), bytes[i]);
	/* Nothing was lost. */
	assert_int_equal(in(UART_LSR), UART_LSR_THRE | UART_LSR_TEMT);
}

static void without_fifos_there_is_one_character(void **state)
{
	(void)state;
	out(UART_MCR, UART_MCR_OUT2);
	out(UART_IER, UART_IER_RDI);
	type("xy");
	assert_int_equal(in(UART_IIR), UART_IIR_RDI);
	assert_int_equal(in(UART_RX), 'x');
	assert_int_equal(in(UART_RX), 'y');
	assert_false(line);
	/* The next one takes its place. */
	out(UART_MCR, UART_MCR_LOOP);
	out(UART_TX, '1');
	out(UART_TX, '2');
	assert_int_equal(in(UART_LSR), UART_LSR_OE | UART_LSR_DR | UART_LSR_THRE | UART_LSR_TEMT);
	assert_int_equal(in(UART_RX), '2');
	assert_int_equal(in(UART_LSR), UART_LSR_THRE | UART_LSR_TEMT);
}

static void the_fifo_can_be_cleared(void **state)
{
	(void)state;
	start(UART_FCR_TRIGGER_1, UART_IER_RDI);
	type("abc");
	out(UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_RCVR);
	assert_int_equal(in(UART_LSR) & UART_LSR_DR, 0);
	assert_false(line);
	type("abc");
	/* Without the enable bit the others say nothing, but it clears, too. */
	out(UART_FCR, UART_FCR_TRIGGER_14);
	assert_int_equal(in(UART_LSR) & UART_LSR_DR, 0);
	assert_int_equal(in(UART_IIR), UART_IIR_NO_INT);
}

/* As size_fifo() of Linux counts them; the rest is lost, and reported. */
static void loopback_holds_16_characters(void **state)
{
	unsigned count = 0;

	(void)state;
	start(UART_FCR_TRIGGER_14, UART_IER_RLSI);
	out(UART_MCR, UART_MCR_LOOP);
	type("not seen");
	for (unsigned i = 0; i < 256; i++)
		out(UART_TX, i);
	assert_int_equal(in(UART_IIR) & 0x0f, UART_IIR_RLSI);
	assert_int_equal(in(UART_LSR), UART_LSR_OE | UART_LSR_DR | UART_LSR_THRE | UART_LSR_TEMT);
	assert_int_equal(in(UART_IIR) & 0x0f, UART_IIR_NO_INT);
	while (in(UART_LSR) & UART_LSR_DR)
		assert_int_equal(in(UART_RX), count++);
	assert_int_equal(count, SERIAL_FIFO);
	assert_int_equal(output_bytes, 0);
	/* What came meanwhile is not lost. */
	out(UART_MCR, 0);
	assert_int_equal(in(UART_RX), 'n');
}

static void modem_lines_tell_what_changed(void **state)
{
	(void)state;
	start(UART_FCR_TRIGGER_1, UART_IER_MSI);
	out(UART_MCR, UART_MCR_LOOP | UART_MCR_DTR | UART_MCR_RTS | UART_MCR_OUT2 | UART_MCR_OUT1);
	assert_int_equal(in(UART_IIR) & 0x0f, UART_IIR_NO_INT);
	assert_int_equal(in(UART_MSR), UART_MSR_DCD | UART_MSR_RI | UART_MSR_DSR | UART_MSR_CTS);
	/* The end of ringing, and a DSR that is gone. */
	out(UART_MCR, UART_MCR_LOOP | UART_MCR_RTS | UART_MCR_OUT2);
	assert_int_equal(in(UART_IIR) & 0x0f, UART_IIR_MSI);
	assert_int_equal(in(UART_MSR), UART_MSR_DCD | UART_MSR_CTS | UART_MSR_TERI | UART_MSR_DDSR);
	assert_int_equal(in(UART_MSR), UART_MSR_DCD | UART_MSR_CTS);
	/* Out of loopback, the other side's DSR comes back. */
	out(UART_MCR, UART_MCR_OUT2);
	assert_true(line);
	assert_int_equal(in(UART_MSR) & 0x0f, UART_MSR_DDSR);
	assert_false(line);
}

static void interrupts_have_an_order(void **state)
{
	(void)state;
	start(UART_FCR_TRIGGER_1, UART_IER_MSI | UART_IER_THRI | UART_IER_RDI | UART_IER_RLSI);
	out(UART_MCR, UART_MCR_LOOP | UART_MCR_OUT2);
	for (unsigned i = 0; i <= SERIAL_FIFO; i++)
		out(UART_TX, 'a');
	assert_int_equal(in(UART_IIR) & 0x0f, UART_IIR_RLSI);
	in(UART_LSR);
	assert_int_equal(in(UART_IIR) & 0x0f, UART_IIR_RDI);
	while (in(UART_LSR) & UART_LSR_DR)
		in(UART_RX);
	assert_int_equal(in(UART_IIR) & 0x0f, UART_IIR_THRI);
	assert_int_equal(in(UART_IIR) & 0x0f, UART_IIR_MSI);
	in(UART_MSR);
	assert_int_equal(in(UART_IIR) & 0x0f, UART_IIR_NO_INT);
}

static void a_break_comes_with_its_character(void **state)
{
	(void)state;
	start(UART_FCR_TRIGGER_1, UART_IER_RDI | UART_IER_RLSI);
	type("a");
	assert_true(serial_input_break(&serial));
	type("h");
	/* It is in the FIFO somewhere, behind another character. */
	assert_int_equal(in(UART_LSR),
			 UART_LSR_DR | UART_LSR_THRE | UART_LSR_TEMT | UART_LSR_FIFOE);
	assert_int_equal(in(UART_IIR) & 0x0f, UART_IIR_RDI);
	assert_int_equal(in(UART_RX), 'a');
	assert_int_equal(in(UART_IIR) & 0x0f, UART_IIR_RLSI);
	assert_int_equal(in(UART_LSR) & (UART_LSR_BI | UART_LSR_FIFOE),
			 UART_LSR_BI | UART_LSR_FIFOE);
	assert_int_equal(in(UART_LSR) & (UART_LSR_BI | UART_LSR_FIFOE), 0);
	assert_int_equal(in(UART_RX), 0);
	assert_int_equal(in(UART_RX), 'h');
}

static void wide_accesses_are_of_one_register_after_another(void **state)
{
	struct device_access access = { .offset = UART_MSR, .bytes = 4 };

	(void)state;
	out(UART_SCR, 0x42);
	serial_type.access(&serial, &access);
	assert_int_equal(access.value, 0xffff42b0);
	access = (struct device_access){
		.offset = UART_SCR, .bytes = 8, .write = true, .value = 0x1122334455667788
	};
	serial_type.access(&serial, &access);
	assert_int_equal(in(UART_SCR), 0x88);
}

static void it_goes_on_where_it_was_saved(void **state)
{
	struct serial_state saved;

	(void)state;
	start(UART_FCR_TRIGGER_8, UART_IER_RDI | UART_IER_THRI);
	out(UART_SCR, 0x77);
	type("0123456789abcdefghi");
	assert_int_equal(in(UART_RX), '0');
	serial_save(&serial, &saved);
	begin(state);
	assert_true(serial_restore(&serial, &saved));
	assert_true(line);
	assert_int_equal(in(UART_SCR), 0x77);
	assert_int_equal(in(UART_IIR), 0xc0 | UART_IIR_RDI);
	for (const char *at = "123456789abcdefg"; *at; at++)
		assert_int_equal(in(UART_RX), *at);
	/* What had not reached the FIFO is not part of the guest. */
	assert_int_equal(in(UART_LSR) & UART_LSR_DR, 0);
	assert_int_equal(in(UART_IIR), 0xc0 | UART_IIR_THRI);
}

static void what_is_no_state_is_refused(void **state)
{
	struct serial_state good;
	struct serial_state bad;

	(void)state;
	serial_save(&serial, &good);
#define REFUSE(field, value)                                                                       \
	do {                                                                                       \
		bad = good;                                                                        \
		bad.field = (value);                                                               \
		assert_false(serial_restore(&serial, &bad));                                       \
	} while (0)
	REFUSE(version, SERIAL_STATE_VERSION + 1);
	REFUSE(received, 2);
	REFUSE(ier, 0x10);
	REFUSE(fcr, 0x02);
	REFUSE(mcr, 0x20);
	REFUSE(lsr, 0x01);
	REFUSE(thr_empty, 2);
	REFUSE(fifo_lsr[15], 0x80);
	good.fcr = UART_FCR_ENABLE_FIFO;
	REFUSE(received, SERIAL_FIFO + 1);
#undef REFUSE
	assert_int_equal(in(UART_IIR), UART_IIR_NO_INT);
	assert_true(serial_restore(&serial, &good));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(it_is_as_after_a_reset, begin),
		cmocka_unit_test_setup(the_divisor_hides_data_and_interrupts, begin),
		cmocka_unit_test_setup(text_goes_out, begin),
		cmocka_unit_test_setup(linux_finds_a_16550A, begin),
		cmocka_unit_test_setup(linux_trusts_the_transmitter_interrupt, begin),
		cmocka_unit_test_setup(the_transmitter_interrupts_after_each_filling, begin),
		cmocka_unit_test_setup(without_out2_there_is_no_interrupt, begin),
		cmocka_unit_test_setup(the_receiver_interrupts_by_level_and_timeout, begin),
		cmocka_unit_test_setup(input_waits_for_room_in_the_fifo, begin),
		cmocka_unit_test_setup(without_fifos_there_is_one_character, begin),
		cmocka_unit_test_setup(the_fifo_can_be_cleared, begin),
		cmocka_unit_test_setup(loopback_holds_16_characters, begin),
		cmocka_unit_test_setup(modem_lines_tell_what_changed, begin),
		cmocka_unit_test_setup(interrupts_have_an_order, begin),
		cmocka_unit_test_setup(a_break_comes_with_its_character, begin),
		cmocka_unit_test_setup(wide_accesses_are_of_one_register_after_another, begin),
		cmocka_unit_test_setup(it_goes_on_where_it_was_saved, begin),
		cmocka_unit_test_setup(what_is_no_state_is_refused, begin),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
