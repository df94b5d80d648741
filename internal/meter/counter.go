package meter

import (
	"math/bits"
	"time"
)

// Outcome is what an invocation came to.
type Outcome int

// The outcomes.
const (
	Done   Outcome = iota
	Failed         // and attempted again
	Dead           // and not attempted again
)

// Invocation is what is counted of one.
type Invocation struct {
	Outcome Outcome
	// Cold is true when an instance was made for it.
	Cold bool
	// Wall is how long it took, and CPU its processor time.
	Wall, CPU time.Duration
	// MemoryPeak is the most memory it held, in bytes.
	MemoryPeak int64
	// BytesIn is the length of the event; BytesOut that of the result and the log.
	BytesIn, BytesOut int64
}

// buckets is how many classes of durations there are: below 1 µs, 2 µs, 4 µs and so on; the last holds
// all that are longer.
const buckets = 32

// Counter is the sum of many invocations.
type Counter struct {
	Done    int64 `json:"d,omitzero"`
	Failed  int64 `json:"e,omitzero"`
	Dead    int64 `json:"x,omitzero"`
	Cold    int64 `json:"c,omitzero"`
	Wall    int64 `json:"w,omitzero"` // nanoseconds
	CPU     int64 `json:"u,omitzero"` // nanoseconds
	PeakMax int64 `json:"m,omitzero"` // bytes
	// GBSeconds is memory held over time, in gigabytes (10^9 bytes) and seconds: the peak of each
	// invocation times its wall time.
	GBSeconds float64 `json:"g,omitzero"`
	BytesIn   int64   `json:"i,omitzero"`
	BytesOut  int64   `json:"o,omitzero"`
	// Durations counts invocations by how long they took: class n took less than 2^n µs.
	Durations [buckets]int64 `json:"h"`
}

// Invocations returns how many there were.
func (c *Counter) Invocations() int64 { return c.Done + c.Failed + c.Dead }

func (c *Counter) add(inv *Invocation) {
	switch inv.Outcome {
	case Failed:
		c.Failed++
	case Dead:
		c.Dead++
	default:
		c.Done++
	}
	if inv.Cold {
		c.Cold++
	}
	c.Wall += int64(inv.Wall)
	c.CPU += int64(inv.CPU)
	c.PeakMax = max(c.PeakMax, inv.MemoryPeak)
	c.GBSeconds += float64(inv.MemoryPeak) / 1e9 * inv.Wall.Seconds()
	c.BytesIn += inv.BytesIn
	c.BytesOut += inv.BytesOut
	c.Durations[class(inv.Wall)]++
}

func class(d time.Duration) int {
	return min(bits.Len64(uint64(max(d, 0).Microseconds())), buckets-1)
}

func (c *Counter) merge(o *Counter) {
	c.Done += o.Done
	c.Failed += o.Failed
	c.Dead += o.Dead
	c.Cold += o.Cold
	c.Wall += o.Wall
	c.CPU += o.CPU
	c.PeakMax = max(c.PeakMax, o.PeakMax)
	c.GBSeconds += o.GBSeconds
	c.BytesIn += o.BytesIn
	c.BytesOut += o.BytesOut
	for i, n := range o.Durations {
		c.Durations[i] += n
	}
}

// Quantile returns a duration that the given part of the invocations, 0 to 1, did not exceed. It is
// exact to a factor of 2.
func (c *Counter) Quantile(part float64) time.Duration {
	return quantile(&c.Durations, c.Invocations(), part)
}

func quantile(durations *[buckets]int64, total int64, part float64) time.Duration {
	if total == 0 {
		return 0
	}
	left := int64(part * float64(total))
	for i, n := range durations {
		if left -= n; left < 0 || i == buckets-1 {
			return time.Duration(1<<i) * time.Microsecond
		}
	}
	return 0
}
