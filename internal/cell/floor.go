package cell

import (
	"context"
	"time"

	"sallyport/internal/problem"
)

// floorBytes is how much memory the instances take that the function has at least.
func (f *Function) floorBytes() int64 {
	if f.template == nil {
		return 0
	}
	return int64(f.limits.MinInstances) * (f.template.image.Size() + tableBytes(f.module.report))
}

// pin makes the instances that the function has at least. It is the end of Load, and fails as that does. A
// module without a template, of which each instance serves one event, is refused.
func (f *Function) pin(ctx context.Context) error {
	if f.limits.MinInstances == 0 {
		return nil
	}
	if f.template == nil {
		return problem.New(problem.Unprocessable, "cell.min_instances_impossible", "an instance of %s serves one event only, so none can wait for the next", f.name).
			WithHint("leave min_instances out of app.toml")
	}
	p := &f.engine.idle
	p.mu.Lock()
	f.floored = true
	p.floor += f.floorBytes()
	p.mu.Unlock()
	for range f.limits.MinInstances {
		if err := f.prepare(ctx, f.add, f.explainInitialize); err != nil {
			return err
		}
	}
	return nil
}

// refill makes an instance in the place of one that was closed after its event, if fewer wait now than the
// function has at least. Whoever waits for the result of that event waits for this too, after a
// failure, and needs no goroutine with an owner. That it fails is no loss: the next event makes the instance.
func (f *Function) refill(ctx context.Context) {
	if f.limits.MinInstances == 0 || f.template == nil {
		return
	}
	f.engine.idle.mu.Lock()
	enough := f.closed || len(f.idle) >= f.limits.MinInstances
	f.engine.idle.mu.Unlock()
	if !enough {
		_ = f.prepare(context.WithoutCancel(ctx), f.add, f.explainInitialize)
	}
}

// add makes an instance and has it wait for an event.
func (f *Function) add(ctx context.Context, inv *invocation) error {
	in, err := f.wake(ctx, inv)
	if err != nil {
		return err
	}
	f.settle(ctx, in, time.Now(), nil)
	return nil
}
