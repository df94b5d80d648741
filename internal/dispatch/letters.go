package dispatch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"sallyport/api"
	"sallyport/internal/event"
	"sallyport/internal/eventlog"
	"sallyport/internal/ident"
	"sallyport/internal/problem"
)

// directName stands for the subscription in the id of a dead letter of a direct invocation. It
// cannot be the name of one: names begin with a letter.
const directName = "-invoke"

// letterText is a dead letter as it is stored: what the API shows of it, and the whole event, which
// retention may remove from the log.
type letterText struct {
	Letter api.DeadLetter `json:"letter"`
	Record []byte         `json:"record"`
}

// letterKey sorts the newest event first.
func letterKey(k deliveryKey) string {
	sub := string(k.sub)
	if sub == "" {
		sub = directName
	}
	return fmt.Sprintf("%016x.%s", ^uint64(k.pos), sub)
}

// letterID is how users name a dead letter: position and subscription.
func letterID(k deliveryKey) string {
	_, sub, _ := strings.Cut(letterKey(k), ".")
	return k.pos.String() + "." + sub
}

func parseLetterID(id string) (deliveryKey, bool) {
	pos, sub, ok := strings.Cut(id, ".")
	n, err := strconv.ParseUint(pos, 10, 64)
	if !ok || err != nil {
		return deliveryKey{}, false
	}
	if sub == directName {
		return deliveryKey{pos: ident.Position(n)}, true
	}
	name, err := ident.ParseSubscriptionName(sub)
	return deliveryKey{ident.Position(n), name}, err == nil
}

// storeLetter stores the dead letter that an attempt's result makes. Storing it twice is harmless.
func (d *Dispatcher) storeLetter(ctx context.Context, del *delivery, res *result) error {
	first := res.try
	if len(del.tries) > 0 {
		first = del.tries[0]
	}
	rec := del.rec
	text, err := json.Marshal(&letterText{
		Record: event.AppendRecord(nil, rec),
		Letter: api.DeadLetter{
			ID: letterID(del.key()), EventID: rec.ID, Source: rec.Source, Type: string(rec.Type),
			Subscription: string(del.route.sub), Function: string(del.route.fn), Reason: res.try.Code,
			Attempts: del.made + 1, FirstError: first.Error, LastError: res.try.Error,
			FirstAttempt: time.Unix(0, first.Started).UTC(), DeadAt: time.Unix(0, res.try.Finished).UTC(),
			Position: uint64(del.pos),
		},
	})
	if err != nil {
		return err
	}
	return d.cfg.DeadLetters.Put(ctx, letterKey(del.key()), text)
}

// listPage is how many letters are read from the store at once.
const listPage = 256

// DeadLetters returns up to limit dead letters, those of the newest events first, after the cursor
// that the call before returned; subscription "" is any.
func (d *Dispatcher) DeadLetters(ctx context.Context, sub ident.SubscriptionName, cursor string, limit int) (list []api.DeadLetter, next string, err error) {
	after := ""
	if cursor != "" {
		key, ok := parseLetterID(cursor)
		if !ok {
			return nil, "", problem.New(problem.Invalid, "dispatch.bad_cursor", "the cursor is not one that a list returned")
		}
		after = letterKey(key)
	}
	list = []api.DeadLetter{}
	for {
		entries, err := d.cfg.DeadLetters.List(ctx, "", after, listPage)
		if err != nil {
			return nil, "", err
		}
		for _, e := range entries {
			after = e.Key
			var t letterText
			if err := json.Unmarshal(e.Value, &t); err != nil {
				return nil, "", fmt.Errorf("dead letter %q: %w", e.Key, err)
			}
			if !d.isDead(t.Letter.ID) || sub != "" && t.Letter.Subscription != string(sub) {
				continue
			}
			if len(list) == limit {
				return list, list[limit-1].ID, nil
			}
			list = append(list, t.Letter)
		}
		if len(entries) < listPage {
			return list, "", nil
		}
	}
}

// isDead reports whether the journal knows the letter: one in the store alone is left from a crash.
func (d *Dispatcher) isDead(id string) bool {
	key, ok := parseLetterID(id)
	d.mu.Lock()
	defer d.mu.Unlock()
	_, dead := d.dead[key]
	return ok && dead
}

func letterNotFound() error {
	return problem.New(problem.NotFound, "dispatch.dead_letter_not_found", "there is no dead letter with this id").
		WithHint("list them with `sallyport dead-letter list`")
}

// DeadLetter returns one dead letter and its event.
func (d *Dispatcher) DeadLetter(ctx context.Context, id string) (*api.DeadLetter, *event.Record, error) {
	key, ok := parseLetterID(id)
	if !ok || !d.isDead(id) {
		return nil, nil, letterNotFound()
	}
	text, err := d.cfg.DeadLetters.Get(ctx, letterKey(key))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, letterNotFound()
	}
	if err != nil {
		return nil, nil, err
	}
	var t letterText
	if err := json.Unmarshal(text, &t); err != nil {
		return nil, nil, fmt.Errorf("dead letter %q: %w", id, err)
	}
	rec, err := event.ParseRecord(t.Record)
	if err != nil {
		return nil, nil, fmt.Errorf("dead letter %q: %w", id, err)
	}
	rec.Position = key.pos
	return &t.Letter, &rec, nil
}

// selectLetters returns the keys that a selection names.
func (d *Dispatcher) selectLetters(sel api.DeadLetterSelection) ([]deliveryKey, error) {
	given := 0
	for _, is := range []bool{len(sel.IDs) > 0, sel.Subscription != "", sel.All} {
		if is {
			given++
		}
	}
	if given != 1 {
		return nil, problem.New(problem.Invalid, "dispatch.bad_selection", "name dead letters by ids, by subscription, or all of them")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var keys []deliveryKey
	for _, id := range sel.IDs {
		key, ok := parseLetterID(id)
		if _, dead := d.dead[key]; !ok || !dead {
			return nil, letterNotFound()
		}
		keys = append(keys, key)
	}
	if len(sel.IDs) == 0 {
		for key := range d.dead {
			if sel.All || string(key.sub) == sel.Subscription {
				keys = append(keys, key)
			}
		}
	}
	return keys, nil
}

func result0(sel api.DeadLetterSelection, keys []deliveryKey) *api.DeadLetterResult {
	out := &api.DeadLetterResult{IDs: []string{}, DryRun: sel.DryRun}
	for _, k := range keys {
		out.IDs = append(out.IDs, letterID(k))
	}
	return out
}

// Redrive makes the selected dead letters pending deliveries again, with all their attempts. An
// event that retention has removed cannot be redriven; then nothing is.
func (d *Dispatcher) Redrive(ctx context.Context, sel api.DeadLetterSelection) (*api.DeadLetterResult, error) {
	keys, err := d.selectLetters(sel)
	if err != nil {
		return nil, err
	}
	revived := make([]*delivery, len(keys))
	for i, key := range keys {
		if _, err := d.batches.record(ctx, key.pos); errors.Is(err, eventlog.ErrTrimmed) {
			return nil, problem.New(problem.Conflict, "dispatch.event_trimmed",
				"the event of dead letter %s was removed by retention and cannot be redriven", letterID(key)).
				WithHint("`sallyport dead-letter get` still shows it: send its data again as a new event")
		} else if err != nil {
			return nil, err
		}
		letter, _, err := d.DeadLetter(ctx, letterID(key))
		if err != nil {
			return nil, err
		}
		revived[i] = &delivery{pos: key.pos, final: key.sub == ""}
		revived[i].route = &route{sub: key.sub, fn: ident.FunctionName(letter.Function)}
	}
	if sel.DryRun {
		return result0(sel, keys), nil
	}
	d.mu.Lock()
	for i, key := range keys {
		if _, dead := d.dead[key]; !dead {
			continue // somebody else was faster
		}
		del := revived[i]
		del.route = d.intern(*del.route)
		delete(d.dead, key)
		ev := plus(d.open[key.pos], 1)
		ev.dead--
		d.open[key.pos] = ev
		d.setParked(del)
		d.outbox.add(encode(entryRedrive, describe(del)))
		d.enqueue(d.lane(del.route.fn), del)
	}
	d.mu.Unlock()
	return d.finishLetters(ctx, sel, keys)
}

// Discard ends the selected dead letters for good. Their events stay counted as dead.
func (d *Dispatcher) Discard(ctx context.Context, sel api.DeadLetterSelection) (*api.DeadLetterResult, error) {
	keys, err := d.selectLetters(sel)
	if err != nil || sel.DryRun {
		return result0(sel, keys), err
	}
	d.mu.Lock()
	for _, key := range keys {
		if _, dead := d.dead[key]; dead {
			d.outbox.add(encode(entryDiscard, &parkedText{Pos: key.pos, Sub: key.sub}))
			d.discard(key)
		}
	}
	d.mu.Unlock()
	return d.finishLetters(ctx, sel, keys)
}

// discard forgets a dead letter. d.mu is held.
func (d *Dispatcher) discard(key deliveryKey) {
	delete(d.dead, key)
	ev := d.open[key.pos]
	if ev == nil {
		return
	}
	ev.dead--
	d.gone[key.pos] = struct{}{}
	d.conclude(key.pos)
}

// finishLetters waits until the journal has what was done, then removes the letters themselves.
func (d *Dispatcher) finishLetters(ctx context.Context, sel api.DeadLetterSelection, keys []deliveryKey) (*api.DeadLetterResult, error) {
	d.poke()
	if err := d.outbox.durable(ctx); err != nil {
		return nil, fmt.Errorf("wait for the journal of deliveries: %w", err)
	}
	for _, key := range keys {
		if err := d.removeLetter(ctx, key); err != nil {
			return nil, fmt.Errorf("remove dead letter: %w", err)
		}
	}
	return result0(sel, keys), nil
}

func (d *Dispatcher) removeLetter(ctx context.Context, key deliveryKey) error {
	d.letters.Lock()
	defer d.letters.Unlock()
	if d.isDead(letterID(key)) {
		return nil // dead again already
	}
	return d.cfg.DeadLetters.Delete(ctx, letterKey(key))
}
