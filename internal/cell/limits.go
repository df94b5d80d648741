package cell

import (
	"errors"
	"fmt"
	"time"
)

// Limits bound one invocation. The zero value is refused.
type Limits struct {
	// Memory is the most linear memory the guest may hold, in bytes.
	Memory int64
	// Timeout is the most wall time it may take, its initialisation included.
	Timeout time.Duration
	// CPU is the most processor time it may take; 0 is as much as the timeout allows.
	CPU time.Duration
	// Output is the longest result it may hand over, in bytes.
	Output int
	// LogBytes is the most it may log; what comes after is dropped, and the log says so.
	LogBytes int
	// Events is the most events it may return.
	Events int
	// HostCalls is how often it may call the host.
	HostCalls int
	// MinInstances is how many instances are made by Load, and wait for the next event however long that takes.
	MinInstances int
}

// Ceilings of the limits: what a manifest may ask for at most.
const (
	MinMemory  = 1 << 20   // bytes; no useful guest is smaller
	MaxMemory  = 512 << 20 // bytes; a function that needs more is a service of its own
	MinTimeout = time.Millisecond
	MaxTimeout = 5 * time.Minute
	MaxOutput  = 8 << 20 // bytes; the largest message the event log stores
	MaxLog     = 1 << 20 // bytes of log lines of one invocation
	MaxEvents  = 1000    // events; the event log's largest batch is 1,024
	// MaxHostCalls is some seconds of nothing but calls.
	MaxHostCalls = 1_000_000
	// MaxMinInstances is more than a machine has processors for as a rule: what it buys is the time of making one.
	MaxMinInstances = 16
)

// DefaultLimits returns the limits of a function whose manifest names none.
func DefaultLimits() Limits {
	return Limits{Memory: 64 << 20, Timeout: 10 * time.Second, Output: 1 << 20, LogBytes: 64 << 10, Events: 100, HostCalls: 100_000}
}

// Validate reports every limit that is out of range.
func (l Limits) Validate() error {
	return errors.Join(
		inRange("memory in bytes", l.Memory, MinMemory, MaxMemory),
		inRange("timeout", l.Timeout, MinTimeout, MaxTimeout),
		inRange("cpu", l.CPU, 0, MaxTimeout),
		inRange("output in bytes", l.Output, 1, MaxOutput),
		inRange("log in bytes", l.LogBytes, 0, MaxLog),
		inRange("events", l.Events, 0, MaxEvents),
		inRange("host calls", l.HostCalls, 1, MaxHostCalls),
		inRange("min instances", l.MinInstances, 0, MaxMinInstances),
	)
}

func inRange[T int | int64 | time.Duration](name string, v, least, most T) error {
	if v < least || v > most {
		return fmt.Errorf("limit %s is %v, want %v to %v", name, v, least, most)
	}
	return nil
}
