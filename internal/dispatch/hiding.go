package dispatch

import (
	"context"
	"errors"
	"slices"
	"sync"

	"sallyport/internal/deploy"
	"sallyport/internal/problem"
	"sallyport/internal/redact"
)

// maxHiding bounds the Sets of one attempt: each is another state of the function's secrets.
const maxHiding = 16

// hiding takes the secrets of a function out of what it says in one attempt. What they are may change meanwhile: a value that another store has is known when it
// is read, a version is set, or destroyed, while the function runs. So the secrets are looked up before it runs and again after each use of a grant, before
// the function has the answer, and what was known once stays hidden to the end.
type hiding struct {
	look func(ctx context.Context) (*redact.Set, error) // nil for a function without secrets

	mu   sync.RWMutex
	sets []*redact.Set
}

func (d *Dispatcher) hiding(ctx context.Context, fn *deploy.Function) (*hiding, error) {
	h := &hiding{}
	if d.cfg.Redactor != nil && len(fn.Secrets)+len(fn.Reveals) > 0 {
		h.look = func(ctx context.Context) (*redact.Set, error) { return d.redactor(ctx, fn) }
	}
	return h, h.again(ctx)
}

// again looks up what there is to hide by now. Without it the function must not go on: what cannot be taken out must not be said.
func (h *hiding) again(ctx context.Context) error {
	if h.look == nil {
		return nil
	}
	set, err := h.look(ctx)
	if err != nil || set == nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if slices.Contains(h.sets, set) {
		return nil
	}
	if len(h.sets) == maxHiding {
		h.sets = slices.Delete(h.sets, 0, 1)
	}
	h.sets = append(h.sets, set)
	return nil
}

// over has f applied with each of the Sets.
func over[T any](h *hiding, v T, f func(*redact.Set, T) T) T {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for _, set := range h.sets {
		v = f(set, v)
	}
	return v
}

func (h *hiding) cut(text string) string   { return over(h, text, (*redact.Set).Cut) }
func (h *hiding) text(text string) string  { return over(h, text, (*redact.Set).Text) }
func (h *hiding) bytes(b []byte) []byte    { return over(h, b, (*redact.Set).Bytes) }
func (h *hiding) json(value []byte) []byte { return over(h, value, (*redact.Set).JSON) }

// fromError takes secrets out of an error that a function may have had a hand in.
func (h *hiding) fromError(err error) error {
	p, ok := errors.AsType[*problem.Error](err)
	if !ok || h.look == nil {
		return err
	}
	c := *p
	c.Public, c.Hint = h.cut(p.Public), h.cut(p.Hint)
	c.Faults = slices.Clone(p.Faults)
	for i := range c.Faults {
		f := &c.Faults[i]
		f.Detail, f.Source, f.Pointer = h.cut(f.Detail), h.cut(f.Source), h.cut(f.Pointer)
	}
	return &c
}
