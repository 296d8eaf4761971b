EXTENSION = sendcampaign
EXTVERSION = 1.1
MODULE_big = sendcampaign
# A new installation runs these one after the other, so it is the same as an updated one
DATA = sendcampaign--1.0.sql sendcampaign--1.0--1.1.sql

# The directory of this file, which is another one in a VPATH build
here := $(or $(VPATH),$(patsubst %/,%,$(dir $(firstword $(MAKEFILE_LIST)))))
# PGXS does not set VPATH if the server was built in its source directory
ifneq ($(here),.)
VPATH = $(here)
endif
SOURCES := $(wildcard $(here)/src/*.c $(here)/src/*/*.c)
LOCAL_HEADERS := $(wildcard $(here)/src/*.h $(here)/src/*/*.h)
$(if $(SOURCES),,$(error There are no sources in $(here)/src))
OBJS = $(patsubst $(here)/%.c,%.o,$(SOURCES))

REGRESS = $(patsubst $(here)/test/sql/%.sql,%,$(wildcard $(here)/test/sql/*.sql))
REGRESS_OPTS = --inputdir=$(here)/test $(if $(TEMP_INSTANCE),--temp-instance=$(TEMP_INSTANCE))
TAP_TESTS = 1
PROVE_TESTS = test/t/*.pl

# COPT=-Werror turns warnings into errors, as script/test does
PG_CPPFLAGS = -DSENDCAMPAIGN_VERSION='"$(EXTVERSION)"' -I$(here)/src
PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers
SHLIB_LINK = -lcurl -lpthread

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
headers := $(shell $(PG_CONFIG) --includedir-server)
$(if $(wildcard $(headers)/postgres.h),,$(error PostgreSQL's server headers are not in "$(headers)". \
	On Debian they are in postgresql-server-dev-NN; PG_CONFIG=/path/to/pg_config chooses a server))
include $(PGXS)

# Absolute paths; relative ones would be found in the source tree, by VPATH
folders := $(addprefix $(CURDIR)/,$(sort $(dir $(OBJS))))

$(OBJS): $(LOCAL_HEADERS) | $(folders)

$(folders):
	mkdir -p $@

.PHONY: twilio
twilio:
	$(MAKE) -C $(here)/test/twilio

# The distribution for PGXN: what is committed, with the version of META.json
DISTVERSION = $(shell sed -n 's/^   "version": "\(.*\)",$$/\1/p' $(here)/META.json)
.PHONY: dist
dist:
	git -C $(here) diff-index --quiet HEAD || { echo "make dist: not everything is committed" >&2; exit 1; }
	git -C $(here) archive --format=zip --prefix=$(EXTENSION)-$(DISTVERSION)/ \
		--output=$(CURDIR)/$(EXTENSION)-$(DISTVERSION).zip HEAD
