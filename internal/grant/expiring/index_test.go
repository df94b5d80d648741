package expiring_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/internal/grant/expiring"
)

// entry is a number until a time.
type entry struct {
	number int
	until  time.Time
}

func (e *entry) Over(now time.Time) bool { return !now.Before(e.until) }

// TestIndex holds an index against a map of which everything is computed anew, over random changes.
func TestIndex(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	start := time.Unix(1_700_000_000, 0)
	model := map[string]*entry{"a/0": {until: start.Add(time.Hour)}}
	x := expiring.New(maps.Clone(model))
	for range 5000 {
		name := fmt.Sprintf("%c/%d", 'a'+random.IntN(3), random.IntN(20))
		if random.IntN(3) == 0 {
			delete(model, name)
			x.Delete(name)
		} else {
			e := &entry{random.Int(), start.Add(time.Duration(random.IntN(100)) * time.Second)}
			model[name] = e
			x.Put(name, e)
		}
		now, prefix, after, limit := start.Add(time.Duration(random.IntN(100))*time.Second), []string{"", "a/", "b/1"}[random.IntN(3)], []string{"", "a/1", name, "zz"}[random.IntN(4)], random.IntN(8)+1
		var want []*entry
		over := 0
		for _, n := range slices.Sorted(maps.Keys(model)) {
			switch {
			case model[n].Over(now):
				over++
			case strings.HasPrefix(n, prefix) && (after == "" || n > after):
				want = append(want, model[n])
			}
		}
		got, more := x.List(prefix, after, limit, now)
		if !slices.Equal(got, want[:min(limit, len(want))]) || more != (len(want) > limit) {
			t.Fatalf("List(%q, %q, %d) = %v, %v; want %v", prefix, after, limit, got, more, want)
		}
		if names := x.Over(now, limit); len(names) != min(over, limit) || slices.ContainsFunc(names, func(n string) bool { return !model[n].Over(now) }) {
			t.Fatalf("Over = %v, want %d of %d", names, min(over, limit), over)
		}
		if x.Len() != len(model) || x.Get(name) != model[name] || !maps.Equal(x.All(), model) {
			t.Fatal("the index has other entries than were put in")
		}
	}
}

// TestZeroIndex: the zero Index is empty, and takes entries.
func TestZeroIndex(t *testing.T) {
	t.Parallel()
	var x expiring.Index[*entry]
	x.Delete("a")
	if list, more := x.List("", "", 1, time.Now()); len(list) > 0 || more || x.Get("a") != nil {
		t.Errorf("the zero index has %v", list)
	}
	x.Put("a", &entry{})
	if x.Len() != 1 {
		t.Error("nothing was put in")
	}
}
