package cell_test

import (
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/internal/cell"
)

// forced returns how many collections were forced so far.
func forced() uint32 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.NumForcedGC
}

// It is not parallel: other tests force collections too.
func TestTidier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tidier cell.Tidier
		before := forced()
		for range 3 {
			tidier.Touch()
			time.Sleep(time.Second)
		}
		if got := forced() - before; got != 0 {
			t.Errorf("%d collections while functions are loaded, want none", got)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := forced() - before; got != 1 {
			t.Errorf("%d collections after it has come to rest, want 1", got)
		}
		tidier.Touch()
		tidier.Close()
		tidier.Close()
		tidier.Touch()
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := forced() - before; got != 1 {
			t.Errorf("%d collections after Close, want 1", got)
		}
	})
}
