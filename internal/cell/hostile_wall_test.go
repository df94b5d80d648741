package cell_test

import (
	"context"
	"testing"
	"time"

	"sallyport/internal/cell"
	"sallyport/internal/cell/wall"
	"sallyport/internal/testkit"
)

// walled starts a worker of the real program, whose fault a lost worker is.
func walled(t *testing.T) (*wall.Engine, loader) {
	t.Helper()
	cfg := wall.Default("cell-worker")
	cfg.Program, cfg.Args = testkit.Binary(t), []string{"sallyport", "cell-worker"}
	cfg.Grace = time.Hour // longer than any answer takes here
	e, err := wall.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			t.Errorf("Close = %v", err)
		}
	})
	return e, func(ctx context.Context, spec cell.Spec, limits cell.Limits) (loaded, error) {
		f, err := e.Load(ctx, spec, limits)
		if err != nil {
			return nil, err // not a nil function that is no nil interface
		}
		return f, nil
	}
}

// survived checks that the worker there was is the worker there is.
func survived(t *testing.T, e *wall.Engine, worker int) {
	t.Helper()
	if s := e.State(); s.Restarts != 0 || s.PID != worker {
		t.Errorf("%d workers were lost, and %d took the place of %d", s.Restarts, s.PID, worker)
	}
}

// TestHostileBehindWall is TestHostile with functions where a server has them: nothing in the pack ends a worker, and each failure has the
// code and the sentence that it has in this process.
func TestHostileBehindWall(t *testing.T) {
	t.Parallel()
	e, load := walled(t)
	worker := e.State().PID
	meetAll(t, load)
	survived(t, e, worker)
}

// TestNeverSeenBehindWall is TestNeverSeen with functions where a server has them.
func TestNeverSeenBehindWall(t *testing.T) {
	t.Parallel()
	events := 20_000
	if underRace {
		events = 2000
	}
	e, load := walled(t)
	worker := e.State().PID
	neverSeen(t, load, events)
	survived(t, e, worker)
}
