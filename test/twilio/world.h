/*
 * world.h
 *		The lock that protects messages, statistics, settings and faults.  It
 *		is held for some microseconds at a time.
 */
#ifndef TWILIO_WORLD_H
#define TWILIO_WORLD_H

#include <pthread.h>

extern pthread_mutex_t world_lock;

#endif
