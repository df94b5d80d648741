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
	u.Record(k, at, meter.Use{Failed: true, Denied: true, Took: time.Millisecond, In: 3, Out: 4})
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
	u = openUses()
	want := map[meter.UseKey]meter.UseCounter{k: {Uses: 2, Failed: 1, Denied: 1, Took: int64(time.Second + time.Millisecond), In: 4, Out: 6, Last: at}}
	got := u.Between(at.Add(-24*time.Hour), time.Time{})
	c := got[k]
	if fast, slow := c.Quantile(0.25), c.Quantile(0.99); fast > 2*time.Millisecond || slow < time.Second || slow > 3*time.Second {
		t.Errorf("a quarter took less than %s, nearly all less than %s", fast, slow)
	}
	c.Durations = [len(c.Durations)]int64{}
	got[k] = c
	if got := u.Between(at.Add(-48*time.Hour), at.Add(-24*time.Hour)); len(got) > 0 {
		t.Errorf("the days before have %+v", got)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("after a restart (-want +got):\n%s", diff)
	}
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
}
