package deploy

import (
	"context"
	"slices"
	"sync"
)

// residents bounds what loaded functions hold in memory together: compiled code and templates. When a
// load takes more than there is for it, the functions that were not used for longest are unloaded; the
// next event of one of them loads it again, which takes milliseconds. Pinned ones stay: Apply sees that they fit.
type residents struct {
	most int64 // bytes

	mu    sync.Mutex
	bytes int64
	held  map[*moduleHandle]int64
}

func newResidents(most int64) *residents {
	return &residents{most: most, held: map[*moduleHandle]int64{}}
}

// add notes that m is in memory.
func (r *residents) add(m *moduleHandle, bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bytes += bytes - r.held[m]
	r.held[m] = bytes
}

// remove notes that m is not in memory any more.
func (r *residents) remove(m *moduleHandle) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bytes -= r.held[m]
	delete(r.held, m)
}

// taken returns how much memory they take together, in bytes.
func (r *residents) taken() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.bytes
}

// pinnedBytes returns what pinned functions hold, without those in except.
func (r *residents) pinnedBytes(except []*moduleHandle) (bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for m, n := range r.held {
		if m.pinned && !slices.Contains(except, m) {
			bytes += n
		}
	}
	return bytes
}

// trim unloads functions until there is room, or all that are left are in use. No handle may be
// locked by the caller.
func (r *residents) trim(ctx context.Context) {
	tried := map[*moduleHandle]bool{}
	for {
		oldest := r.oldest(tried)
		if oldest == nil {
			return
		}
		tried[oldest] = true
		oldest.unload(ctx)
	}
}

// oldest returns the function that was not used for longest, of those not in except, while there is
// too much in memory.
func (r *residents) oldest(except map[*moduleHandle]bool) *moduleHandle {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.bytes <= r.most {
		return nil
	}
	var oldest *moduleHandle
	for m := range r.held {
		if !except[m] && !m.pinned && (oldest == nil || m.used.Load() < oldest.used.Load()) {
			oldest = m
		}
	}
	return oldest
}
