// SPDX-License-Identifier: MIT
#include "serial.h"

#include <linux/serial_reg.h>
#include <string.h>

#define REGISTERS	8
#define IER_BITS	(UART_IER_RDI | UART_IER_THRI | UART_IER_RLSI | UART_IER_MSI)
#define FCR_BITS	(UART_FCR_ENABLE_FIFO | UART_FCR_DMA_SELECT | UART_FCR_TRIGGER_MASK)
#define MCR_OUTPUTS	(UART_MCR_DTR | UART_MCR_RTS | UART_MCR_OUT1 | UART_MCR_OUT2)
#define MCR_BITS	(MCR_OUTPUTS | UART_MCR_LOOP)
#define MSR_INPUTS	(UART_MSR_DCD | UART_MSR_RI | UART_MSR_DSR | UART_MSR_CTS)
#define IIR_FIFOS_ON	0xc0
#define DIVISOR_AT_9600 12

/* What the four inputs are without loopback. */
#define OTHER_SIDE (UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS)

/*
 * Of each input: which output it is connected to in loopback ("Modem
 * Control Register"), and what says that it changed ("Modem Status
 * Register").
 */
static const struct {
	uint8_t input, output, delta;
} modem_lines[] = {
	{ UART_MSR_CTS, UART_MCR_RTS, UART_MSR_DCTS },
	{ UART_MSR_DSR, UART_MCR_DTR, UART_MSR_DDSR },
	{ UART_MSR_RI, UART_MCR_OUT1, UART_MSR_TERI },
	{ UART_MSR_DCD, UART_MCR_OUT2, UART_MSR_DDCD },
};

static bool fifos_on(const struct serial *serial)
{
	return serial->state.fcr & UART_FCR_ENABLE_FIFO;
}

static bool loops(const struct serial *serial)
{
	return serial->state.mcr & UART_MCR_LOOP;
}

static unsigned fifo_room(const struct serial *serial)
{
	return (fifos_on(serial) ? SERIAL_FIFO : 1u) - serial->state.received;
}

/* An error shows in LSR when its character is the next to be read ("Line Status Register"). */
static void show_next(struct serial_state *state)
{
	if (!state->received)
		return;
	state->lsr |= state->fifo_lsr[0];
	state->fifo_lsr[0] = 0;
}

/* Without FIFOs, a character that nobody has read is overwritten; with them the new one is lost. */
static void receive(struct serial *serial, uint8_t byte, uint8_t errors)
{
	struct serial_state *state = &serial->state;

	if (!fifo_room(serial)) {
		state->lsr |= UART_LSR_OE;
		if (fifos_on(serial))
			return;
		state->received = 0;
	}
	state->fifo[state->received] = byte;
	state->fifo_lsr[state->received++] = errors;
	show_next(state);
}

/* In loopback the chip's input is disconnected. */
static void receive_waiting(struct serial *serial)
{
	while (!loops(serial) && serial->input_count && fifo_room(serial)) {
		uint16_t next = serial->input[serial->input_first];

		serial->input_first = (serial->input_first + 1) % SERIAL_INPUT;
		serial->input_count--;
		receive(serial, (uint8_t)next, (uint8_t)(next >> 8));
	}
}

static void clear_fifo(struct serial_state *state)
{
	state->received = 0;
	memset(state->fifo, 0, sizeof(state->fifo));
	memset(state->fifo_lsr, 0, sizeof(state->fifo_lsr));
}

/* What the receiver has to report: enough characters, or fewer of them for long enough. */
static uint8_t receiver_interrupt(const struct serial_state *state)
{
	static const uint8_t levels[] = { 1, 4, 8, 14 };

	if (state->fcr & UART_FCR_ENABLE_FIFO && state->received < levels[state->fcr >> 6])
		return UART_IIR_RX_TIMEOUT;
	return UART_IIR_RDI;
}

/* The pending interrupt of the highest priority ("Interrupt Identification Register"). */
static uint8_t pending_interrupt(const struct serial_state *state)
{
	if (state->ier & UART_IER_RLSI && state->lsr)
		return UART_IIR_RLSI;
	if (state->ier & UART_IER_RDI && state->received)
		return receiver_interrupt(state);
	if (state->ier & UART_IER_THRI && state->thr_empty)
		return UART_IIR_THRI;
	if (state->ier & UART_IER_MSI && state->msr & UART_MSR_ANY_DELTA)
		return UART_IIR_MSI;
	return UART_IIR_NO_INT;
}

/* In loopback the outputs, and OUT2 with them, are off ("Modem Control Register"). */
static void set_line(struct serial *serial)
{
	bool raised = serial->state.mcr & UART_MCR_OUT2 && !loops(serial) &&
		      pending_interrupt(&serial->state) != UART_IIR_NO_INT;

	if (raised == serial->raised)
		return;
	serial->raised = raised;
	serial->line.set(serial->line.context, raised);
}

static uint8_t read_rbr(struct serial *serial)
{
	struct serial_state *state = &serial->state;
	uint8_t byte = state->fifo[0];

	if (!state->received)
		return 0;
	state->received--;
	memmove(state->fifo, state->fifo + 1, state->received);
	memmove(state->fifo_lsr, state->fifo_lsr + 1, state->received);
	show_next(state);
	receive_waiting(serial);
	return byte;
}

static uint8_t read_iir(struct serial *serial)
{
	uint8_t pending = pending_interrupt(&serial->state);

	/*
	 * Having been told of it clears this one interrupt ("Interrupt Identification Register").
	 */
	if (pending == UART_IIR_THRI)
		serial->state.thr_empty = 0;
	return pending | (fifos_on(serial) ? IIR_FIFOS_ON : 0);
}

static uint8_t read_lsr(struct serial *serial)
{
	struct serial_state *state = &serial->state;
	uint8_t value = state->lsr | UART_LSR_THRE | UART_LSR_TEMT;
	uint8_t in_fifo = state->lsr & (uint8_t)~UART_LSR_OE;

	if (state->received)
		value |= UART_LSR_DR;
	for (unsigned at = 0; at < state->received; at++)
		in_fifo |= state->fifo_lsr[at];
	if (fifos_on(serial) && in_fifo)
		value |= UART_LSR_FIFOE;
	state->lsr = 0;
	return value;
}

static uint8_t read_msr(struct serial_state *state)
{
	uint8_t value = state->msr;

	state->msr &= MSR_INPUTS;
	return value;
}

static uint8_t read_register(struct serial *serial, unsigned offset)
{
	struct serial_state *state = &serial->state;
	bool divisor = state->lcr & UART_LCR_DLAB;

	switch (offset) {
	case UART_RX:
		return divisor ? state->dll : read_rbr(serial);
	case UART_IER:
		return divisor ? state->dlm : state->ier;
	case UART_IIR:
		return read_iir(serial);
	case UART_LCR:
		return state->lcr;
	case UART_MCR:
		return state->mcr;
	case UART_LSR:
		return read_lsr(serial);
	case UART_MSR:
		return read_msr(state);
	default:
		return state->scr;
	}
}

/* Filled and empty again at once, which is something new to report. */
static void write_thr(struct serial *serial, uint8_t value)
{
	serial->state.thr_empty = 1;
	if (loops(serial))
		receive(serial, value, 0);
	else
		serial->output.put(serial->output.context, value);
}

/* Who enables the transmitter's interrupt is told if it is empty already, which Linux relies on. */
static void write_ier(struct serial_state *state, uint8_t value)
{
	if (~state->ier & value & UART_IER_THRI)
		state->thr_empty = 1;
	state->ier = value & IER_BITS;
}

/*
 * Other bits count only where the FIFOs are on, and turning them on or off empties them ("FIFO
 * Control Register").
 */
static void write_fcr(struct serial *serial, uint8_t value)
{
	struct serial_state *state = &serial->state;
	uint8_t bits = value & UART_FCR_ENABLE_FIFO ? value & FCR_BITS : 0;

	if ((state->fcr ^ bits) & UART_FCR_ENABLE_FIFO || (bits && value & UART_FCR_CLEAR_RCVR))
		clear_fifo(state);
	state->fcr = bits;
	receive_waiting(serial);
}

static void write_mcr(struct serial *serial, uint8_t value)
{
	struct serial_state *state = &serial->state;
	uint8_t inputs = OTHER_SIDE;

	state->mcr = value & MCR_BITS;
	if (loops(serial)) {
		inputs = 0;
		for (unsigned i = 0; i < sizeof(modem_lines) / sizeof(modem_lines[0]); i++)
			if (value & modem_lines[i].output)
				inputs |= modem_lines[i].input;
	}
	for (unsigned i = 0; i < sizeof(modem_lines) / sizeof(modem_lines[0]); i++) {
		bool was = state->msr & modem_lines[i].input;
		bool is = inputs & modem_lines[i].input;

		/* Of the ring indicator it is told only when it ends. */
		if (was != is && (modem_lines[i].input != UART_MSR_RI || was))
			state->msr |= modem_lines[i].delta;
	}
	state->msr = (state->msr & UART_MSR_ANY_DELTA) | inputs;
	receive_waiting(serial);
}

static void write_register(struct serial *serial, unsigned offset, uint8_t value)
{
	struct serial_state *state = &serial->state;
	bool divisor = state->lcr & UART_LCR_DLAB;

	switch (offset) {
	case UART_TX:
		if (divisor)
			state->dll = value;
		else
			write_thr(serial, value);
		break;
	case UART_IER:
		if (divisor)
			state->dlm = value;
		else
			write_ier(state, value);
		break;
	case UART_FCR:
		write_fcr(serial, value);
		break;
	case UART_LCR:
		state->lcr = value;
		break;
	case UART_MCR:
		write_mcr(serial, value);
		break;
	case UART_SCR:
		state->scr = value;
		break;
	default: /* LSR and MSR are for reading. */
		break;
	}
}

/* A wide access is one of each of the registers, of 8 bits each, in turn. */
static void serial_access(void *device, struct device_access *access)
{
	struct serial *serial = device;
	uint64_t value = 0;

	for (unsigned byte = 0; byte < access->bytes; byte++) {
		unsigned shift = 8 * byte;
		uint64_t offset = access->offset + byte;

		if (offset >= REGISTERS)
			value |= access->write ? 0 : UINT64_C(0xff) << shift;
		else if (access->write)
			write_register(serial, (unsigned)offset, (uint8_t)(access->value >> shift));
		else
			value |= (uint64_t)read_register(serial, (unsigned)offset) << shift;
	}
	if (!access->write)
		access->value = value;
	set_line(serial);
}

const struct device_type serial_type = {
	.name = "serial",
	.window = REGISTERS,
	.trigger = DEVICE_EDGE,
	.access = serial_access,
};

void serial_init(struct serial *serial, struct serial_output output, struct device_line line)
{
	*serial = (struct serial){
		.state = {
			.version = SERIAL_STATE_VERSION,
			.dll = DIVISOR_AT_9600,
			.msr = OTHER_SIDE,
		},
		.output = output,
		.line = line,
	};
}

static bool queue_input(struct serial *serial, uint16_t what)
{
	unsigned last = (serial->input_first + serial->input_count) % SERIAL_INPUT;

	if (serial->input_count == SERIAL_INPUT)
		return false;
	serial->input[last] = what;
	serial->input_count++;
	return true;
}

static void take_input(struct serial *serial)
{
	receive_waiting(serial);
	set_line(serial);
}

size_t serial_input(struct serial *serial, const uint8_t *bytes, size_t count)
{
	size_t taken = 0;

	while (taken < count && queue_input(serial, bytes[taken]))
		taken++;
	take_input(serial);
	return taken;
}

bool serial_input_break(struct serial *serial)
{
	if (!queue_input(serial, UART_LSR_BI << 8))
		return false;
	take_input(serial);
	return true;
}

void serial_save(const struct serial *serial, struct serial_state *state)
{
	*state = serial->state;
}

/* Whether the guest's registers could have led to @state. */
static bool state_good(const struct serial_state *state)
{
	unsigned most = state->fcr & UART_FCR_ENABLE_FIFO ? SERIAL_FIFO : 1;

	if (state->version != SERIAL_STATE_VERSION || state->received > most ||
	    state->thr_empty > 1 || state->reserved)
		return false;
	if (state->ier & ~IER_BITS || state->fcr & ~FCR_BITS || state->mcr & ~MCR_BITS ||
	    state->lsr & ~UART_LSR_BRK_ERROR_BITS)
		return false;
	for (unsigned at = 0; at < SERIAL_FIFO; at++)
		if (state->fifo_lsr[at] & ~UART_LSR_BI)
			return false;
	return true;
}

bool serial_restore(struct serial *serial, const struct serial_state *state)
{
	if (!state_good(state))
		return false;
	serial->state = *state;
	serial->input_count = 0;
	set_line(serial);
	return true;
}
