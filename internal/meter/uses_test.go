package meter_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/internal/meter"
)

// What was counted is there after a restart, all of it.
func TestUsesAreKept(t *testing.T) {
	t.Parallel()
	b := &memory{entries: map[string][]byte{}}
	openUses := func() *meter.Uses {
		u, err := meter.OpenUses(t.Context(), b, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	u, at := openUses(), time.Now().UTC()
	k := meter.UseKey{Function: "price", Grant: "orders", Kind: "sql"}
	u.Record(k, at, meter.Use{Took: time.Second, In: 1, Out: 2})
	u.Record(k, at, meter.Use{Failed: true, Took: time.Second, In: 3, Out: 4})
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
	u = openUses()
	want := map[meter.UseKey]meter.UseCounter{k: {Uses: 2, Failed: 1, Took: int64(2 * time.Second), In: 4, Out: 6, Last: at}}
	if diff := cmp.Diff(want, u.Since(at.Add(-24*time.Hour))); diff != "" {
		t.Errorf("after a restart (-want +got):\n%s", diff)
	}
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
}
