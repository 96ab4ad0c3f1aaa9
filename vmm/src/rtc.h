/* SPDX-License-Identifier: MIT */
/*
 * A real-time clock, as in the data sheet "MC146818A Real-Time Clock plus RAM" (Motorola, 1984), as
 * far as Linux needs it: it tells the host's time in UTC, in BCD and 24 hours. Setting it has no
 * effect; it has no interrupts, and its RAM reads as 0.
 */
#ifndef VMM_RTC_H
#define VMM_RTC_H

#include "device.h"

struct rtc {
	uint8_t index; /* what the data port is about */
};

extern const struct device_type rtc_type;

#endif
