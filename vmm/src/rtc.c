// SPDX-License-Identifier: MIT
#include "rtc.h"

#include <time.h>

#include "platform.h"

/* The data sheet's "Address map", and where PCs keep the century. */
enum rtc_register {
	RTC_SECONDS = 0,
	RTC_MINUTES = 2,
	RTC_HOURS = 4,
	RTC_WEEKDAY = 6,
	RTC_DAY = 7,
	RTC_MONTH = 8,
	RTC_YEAR = 9,
	RTC_A = 10,
	RTC_B = 11,
	RTC_D = 13,
	RTC_CENTURY = 0x32,
};

#define A_32768_HZ 0x26 /* no update is under way, ever */
#define B_24_HOURS 0x02
#define D_VALID	   0x80

#define INDEX_BITS 0x7f /* the highest would disable NMIs */

static uint8_t bcd(int number)
{
	return (uint8_t)(number / 10 << 4 | number % 10);
}

static uint8_t read_register(uint8_t index)
{
	time_t seconds = time(NULL);
	struct tm now;

	gmtime_r(&seconds, &now);
	switch (index) {
	case RTC_SECONDS:
		return bcd(now.tm_sec);
	case RTC_MINUTES:
		return bcd(now.tm_min);
	case RTC_HOURS:
		return bcd(now.tm_hour);
	case RTC_WEEKDAY:
		return bcd(now.tm_wday + 1);
	case RTC_DAY:
		return bcd(now.tm_mday);
	case RTC_MONTH:
		return bcd(now.tm_mon + 1);
	case RTC_YEAR:
		return bcd(now.tm_year % 100);
	case RTC_CENTURY:
		return bcd(19 + now.tm_year / 100);
	case RTC_A:
		return A_32768_HZ;
	case RTC_B:
		return B_24_HOURS;
	case RTC_D:
		return D_VALID;
	default:
		return 0;
	}
}

/* A wide access is one to the first port. */
static void rtc_access(void *device, struct device_access *access)
{
	struct rtc *rtc = device;

	if (access->write && access->offset == 0)
		rtc->state.index = access->value & INDEX_BITS;
	else if (!access->write)
		access->value = access->offset ? read_register(rtc->state.index) : 0xff;
}

const struct device_type rtc_type = {
	.name = "rtc",
	.window = PLATFORM_RTC_PORTS,
	.access = rtc_access,
};

void rtc_init(struct rtc *rtc)
{
	*rtc = (struct rtc){ .state.version = RTC_STATE_VERSION };
}

void rtc_save(const struct rtc *rtc, struct rtc_state *state)
{
	*state = rtc->state;
}

bool rtc_restore(struct rtc *rtc, const struct rtc_state *state)
{
	if (state->version != RTC_STATE_VERSION || state->index & ~INDEX_BITS ||
	    state->reserved[0] || state->reserved[1] || state->reserved[2])
		return false;
	rtc->state = *state;
	return true;
}
