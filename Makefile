EXTENSION = sendcampaign
EXTVERSION = 1.0
MODULE_big = sendcampaign
DATA = sendcampaign--$(EXTVERSION).sql
OBJS = $(patsubst %.c,%.o,$(wildcard src/*.c))
LOCAL_HEADERS = $(wildcard src/*.h)

REGRESS = $(patsubst test/sql/%.sql,%,$(wildcard test/sql/*.sql))
REGRESS_OPTS = --inputdir=test $(if $(TEMP_INSTANCE),--temp-instance=$(TEMP_INSTANCE))
TAP_TESTS = 1
PROVE_TESTS = test/t/*.pl

# COPT=-Werror makes warnings errors, as script/test does
PG_CPPFLAGS = -DSENDCAMPAIGN_VERSION='"$(EXTVERSION)"'
PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers
SHLIB_LINK = -lcurl -lpthread

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

$(OBJS): $(LOCAL_HEADERS)

.PHONY: twilio
twilio:
	$(MAKE) -C test/twilio
