/* SPDX-License-Identifier: MIT */
/*
 * A real-time clock, as in the data sheet "MC146818A Real-Time Clock plus RAM" (Motorola, 1984), as
 * far as Linux needs it: it tells the host's time in UTC, in BCD and 24 hours. Setting it has no
 * effect; it has no interrupts, and its RAM reads as 0.
 */
#ifndef VMM_RTC_H
#define VMM_RTC_H

#include "device.h"

#define RTC_STATE_VERSION 1

/* All that a guest can notice beside the time, to be saved as it is. */
struct rtc_state {
	uint32_t version;
	uint8_t index; /* what the data port is about */
	uint8_t reserved[3];
};

struct rtc {
	struct rtc_state state;
};

extern const struct device_type rtc_type;

void rtc_init(struct rtc *rtc);

void rtc_save(const struct rtc *rtc, struct rtc_state *state);

/* False, with nothing changed, if @state is none of this version, or one that cannot be. */
bool rtc_restore(struct rtc *rtc, const struct rtc_state *state);

#endif
