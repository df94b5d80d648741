package cell

import (
	"context"
	"fmt"

	"sallyport/api"
	"sallyport/internal/cell/js"
	"sallyport/internal/problem"
)

// Compile compiles a module for the Cache alone: what it puts there is what Load would make of the
// code, wherever that has the same Cache. Nothing of the module runs. Of a script nothing is looked at: what all
// scripts share is made, QuickJS and its state before the first script. An engine without a Cache has nothing
// to gain from it. A refusal is a *problem.Error of kind Unprocessable.
func (e *Engine) Compile(ctx context.Context, spec Spec) error {
	switch spec.Kind {
	case api.ModuleScript:
		return e.compileScripts(ctx)
	case api.ModuleWasm:
	default:
		return unknownKind(spec)
	}
	if err := checkModuleSize(spec); err != nil {
		return err
	}
	m, err := e.acquire(ctx, spec.source(), e.moduleWorkers())
	if err != nil {
		return refusedModule(spec.Name, err)
	}
	return e.release(ctx, m)
}

func (e *Engine) compileScripts(ctx context.Context) (err error) {
	m, err := e.acquire(ctx, sourceOf(js.Code()), e.cfg.CompileWorkers)
	if err != nil {
		return err
	}
	f := &Function{name: "QuickJS", kind: KindJavaScript, module: m, guest: &script{}, limits: DefaultLimits(), engine: e}
	defer func() {
		if failure := f.Close(ctx); err == nil {
			err = failure
		}
	}()
	return f.prepare(ctx, func(ctx context.Context, inv *invocation) error {
		if _, err := e.scriptBase(ctx, f, inv); err != nil {
			return fmt.Errorf("prepare QuickJS: %w", err)
		}
		return nil
	}, f.explainBoot)
}

// moduleWorkers is how many goroutines compile a module that nobody vouches for.
func (e *Engine) moduleWorkers() int {
	if e.cfg.Expendable {
		return e.cfg.CompileWorkers
	}
	return 1
}

func unknownKind(spec Spec) error {
	return problem.New(problem.Invalid, "cell.module_kind_unknown", "%s: module kind %q is unknown; want %q or %q",
		spec.Name, spec.Kind, api.ModuleScript, api.ModuleWasm)
}

func checkModuleSize(spec Spec) error {
	if len(spec.Code) > MaxModuleBytes {
		return problem.New(problem.Unprocessable, "cell.module_too_large", "%s: the module is %d bytes long, the limit is %d",
			spec.Name, len(spec.Code), MaxModuleBytes)
	}
	return nil
}
