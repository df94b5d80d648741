package server

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"

	"sallyport/api"
	"sallyport/internal/cell"
	"sallyport/internal/cell/wall"
	"sallyport/internal/deploy"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
)

// cells is where functions run.
type cells struct {
	engine deploy.Engine
	wall   *wall.Engine // nil when they run in this process
	// setting is that of second_wall, as it is followed.
	setting string
	// reset is how memory is put back in this process, and why not better; see wall for workers.
	reset, resetWhy string
}

// status returns where functions run, as the API shows it.
func (c *cells) status() *api.CellStatus {
	out := &api.CellStatus{SecondWall: c.setting, Reset: c.reset, ResetWhy: c.resetWhy}
	if c.wall == nil {
		return out
	}
	state := c.wall.State()
	out.Worker, out.HeavyWorker, out.Lost, out.Reset, out.ResetWhy = state.PID, state.HeavyPID, state.Restarts, state.Reset, state.ResetWhy
	for _, w := range state.Walls {
		out.Walls = append(out.Walls, api.Wall(w))
	}
	return out
}

// Work is a worker process: it runs functions for the server that started it, and returns when that is gone.
func Work(ctx context.Context, lanes int) error {
	if lanes < 0 || lanes > wall.MaxLanes {
		return problem.New(problem.Invalid, "server.not_a_worker", "%d lanes, at most %d are possible", lanes, wall.MaxLanes)
	}
	conn, along, err := wall.Inherited(lanes)
	if err != nil {
		return problem.New(problem.Invalid, "server.not_a_worker", "%v", err)
	}
	return errors.Join(wall.Main(ctx, conn, along), conn.Close())
}

// openCells starts the sandbox engine: in worker processes, or in this one.
func (s *server) openCells(ctx context.Context) error {
	setting := s.cfg.Settings.Cells.SecondWall
	if setting == manifest.WallOff || len(s.cfg.WorkerArgs) == 0 {
		return s.openInProcess(ctx)
	}
	cfg := wall.Default(s.cfg.WorkerArgs...)
	cfg.Logger = s.log
	cache, err := s.codeCache(ctx)
	if err != nil {
		return err
	}
	cfg.Cache = cache
	if bound := s.cfg.Settings.Cells.WorkerMemory; bound > 0 {
		cfg.Memory = bound
	}
	e, err := wall.New(ctx, cfg)
	if errors.Is(err, wall.ErrCgo) {
		return problem.New(problem.Unavailable, "server.second_wall", "no worker process can be started: %v", err).
			WithHint("build it as `make build` does: CGO_ENABLED=0 go build ./cmd/sallyport")
	}
	if err != nil {
		return problem.New(problem.Unavailable, "server.second_wall", "no worker process can be started: %v", err).
			WithHint(`set second_wall = "off" in [cells] of server.toml to run functions in the server's own process`)
	}
	s.later(func() error { return e.Close(context.WithoutCancel(ctx)) })
	s.cells = cells{engine: walled{e}, wall: e, setting: setting}
	state := e.State()
	missing := wallNames(state, false)
	switch {
	case missing == "":
		s.log.Info("functions run behind the second wall", "pid", state.PID, "walls", wallNames(state, true))
	case setting == manifest.WallRequired:
		return problem.New(problem.Unavailable, "server.second_wall", "parts of the second wall are missing: %s", missing).
			WithHint(`mend it, or set second_wall = "on" in [cells] of server.toml to do with what there is`)
	default:
		s.log.Warn("the second wall around functions has gaps", "missing", missing, "walls", wallNames(state, true))
	}
	s.warnOfReset(state.Reset, state.ResetWhy)
	return nil
}

// wallNames lists the walls that stand, or those that do not and why.
func wallNames(s wall.State, stand bool) string {
	var out []string
	for _, w := range s.Walls {
		switch {
		case w.Stands != stand:
		case stand:
			out = append(out, w.Name)
		default:
			out = append(out, w.Name+" ("+w.Detail+")")
		}
	}
	return strings.Join(out, ", ")
}

func (s *server) warnOfReset(method, why string) {
	if why != "" {
		s.log.Warn("functions are reset in a slower way than this program can", "method", method, "error", why)
	}
}

// walled is wall.Engine as the deployer takes it.
type walled struct{ engine *wall.Engine }

// Load implements deploy.Engine.
func (w walled) Load(ctx context.Context, spec cell.Spec, limits cell.Limits) (deploy.Cell, error) {
	f, err := w.engine.Load(ctx, spec, limits)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// codeCache opens the cache of compiled code.
func (s *server) codeCache(ctx context.Context) (*codeCache, error) {
	sealer, err := s.keys.Sealer(ctx, "", "code")
	if err != nil {
		return nil, err
	}
	reserve := s.cfg.Settings.Storage.MinFree
	spare := func() int64 {
		free, err := s.engine.Free()
		if err != nil {
			return 0
		}
		return free - 2*reserve
	}
	return newCodeCache(filepath.Join(s.dir, codeName), sealer, maxCodeCache, spare, s.log)
}

// openInProcess starts the sandbox engine in this process.
func (s *server) openInProcess(ctx context.Context) error {
	cache, err := s.codeCache(ctx)
	if err != nil {
		return err
	}
	cfg := cell.Default()
	cfg.Cache, cfg.Scratch = cache, filepath.Join(s.dir, scratchName)
	engine, err := cell.New(ctx, cfg)
	if err != nil {
		return err
	}
	prepared := s.prepareScripts(ctx, engine)
	s.later(func() error {
		prepared()
		return engine.Close(context.WithoutCancel(ctx))
	})
	s.cells = cells{engine: deploy.InProcess(engine), setting: manifest.WallOff}
	method, why := engine.ResetMethod()
	if s.cells.reset = method.String(); why != nil {
		s.cells.resetWhy = why.Error()
	}
	s.warnOfReset(s.cells.reset, s.cells.resetWhy)
	return nil
}

// prepareScripts has what all scripts share compiled before the first is saved, where somebody is writing one: it takes a
// second or two, once for this version of the program. The function it returns waits for the end of it.
func (s *server) prepareScripts(ctx context.Context, engine *cell.Engine) (wait func()) {
	var background sync.WaitGroup
	if s.cfg.Mode != ModeDev {
		return background.Wait
	}
	ctx, stop := context.WithCancel(ctx)
	background.Go(func() {
		if err := engine.Compile(ctx, cell.Spec{Name: "QuickJS", Kind: api.ModuleScript}); err != nil && ctx.Err() == nil {
			s.log.Warn("what scripts share is not compiled yet; the first script has it compiled", "error", err)
		}
	})
	return func() {
		stop()
		background.Wait()
	}
}
