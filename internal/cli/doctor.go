package cli

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"sallyport/api"
	"sallyport/client"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
)

// The states of a check. A warning is worth a look and fails nothing.
const (
	checkOK      = "ok"
	checkWarning = "warning"
	checkFailed  = "failed"
)

// check is one line of doctor's answer.
type check struct {
	Name   string `json:"name"`
	State  string `json:"state"`
	Detail string `json:"detail"`
	Hint   string `json:"hint,omitempty"`
}

// checks are collected in the order in which they depend on each other.
type checks []check

func (c *checks) ok(name, format string, args ...any) {
	*c = append(*c, check{Name: name, State: checkOK, Detail: fmt.Sprintf(format, args...)})
}

func (c *checks) warn(name, detail, hint string) {
	*c = append(*c, check{Name: name, State: checkWarning, Detail: detail, Hint: hint})
}

func (c *checks) fail(name, detail, hint string) {
	*c = append(*c, check{Name: name, State: checkFailed, Detail: detail, Hint: hint})
}

type doctorFlags struct{ config, dataDir string }

func (a *app) doctorCommand() *cobra.Command {
	var f doctorFlags
	c := &cobra.Command{
		Use: "doctor", Short: "Look for what is wrong with this machine, the settings, the connection and the server", Args: noArguments(),
		Long: `Look for what is wrong: the machine's kernel and clock; the server's settings and data directory, when they are on this
machine (--config, --data-dir, or a running ` + "`sallyport dev`" + `); the connection, the token and the server's state. It changes
nothing. The exit code is 3 when a check failed; warnings fail nothing.`,
		Example: "  sallyport doctor\n  sallyport doctor --config /etc/sallyport/server.toml",
		RunE: func(cmd *cobra.Command, _ []string) error {
			found := a.examine(cmd.Context(), f)
			if err := showEach(a, found, found, func(w io.Writer) { writeChecks(w, found) }); err != nil {
				return err
			}
			if slices.ContainsFunc(found, func(c check) bool { return c.State == checkFailed }) {
				return outcome(exitFound)
			}
			return nil
		},
	}
	c.Flags().StringVar(&f.config, "config", "", "`file` with the settings of a server on this machine")
	c.Flags().StringVar(&f.dataDir, "data-dir", "", "data `folder` of a server on this machine")
	return c
}

func writeChecks(w io.Writer, found checks) {
	var rows [][]string
	mark := map[string]string{checkOK: "ok", checkWarning: "warn", checkFailed: "FAIL"}
	for _, c := range found {
		rows = append(rows, []string{mark[c.State], c.Name, c.Detail})
		if c.Hint != "" {
			rows = append(rows, []string{"", "", "next: " + c.Hint})
		}
	}
	columns(w, rows)
}

// examine makes all checks that can be made.
func (a *app) examine(ctx context.Context, f doctorFlags) checks {
	var c checks
	checkMachine(&c)
	local := f.config != "" || f.dataDir != ""
	if local {
		c.server(f)
	}
	cfg, err := a.resolve(ctx)
	if err != nil {
		p := problem.From(err)
		if local && p.Code == "cli.no_server" {
			c.warn("connection", "not looked at: no server is named", "add --server, --ca-file and --token-file once it runs")
			return c
		}
		c.fail("settings", p.Public, p.Hint)
		return c
	}
	c.ok("settings", "server %s, namespace %s", cfg.Server, cmp.Or(cfg.Namespace, "default"))
	status := c.connection(ctx, cfg)
	if status == nil {
		return c
	}
	// A server on this machine, as dev runs one: its files are here to be looked at.
	if st, err := os.Stat(filepath.Join(status.DataDir, rootKeyName)); !local && status.DataDir != "" && err == nil && st.Mode().IsRegular() {
		c.dataDir(status.DataDir, filepath.Join(status.DataDir, rootKeyName))
		c.ownCertificates(status.DataDir)
	}
	c.state(status)
	return c
}

// connection checks the files of the connection, the connection, the clocks and the token. It returns
// nil when the server's state cannot be seen.
func (c *checks) connection(ctx context.Context, cfg client.Config) *api.Status {
	if cfg.CAFile != "" && !c.certificate("CA file", cfg.CAFile) {
		return nil
	}
	if cfg.TokenFile != "" && !c.private("token file", cfg.TokenFile) {
		return nil
	}
	cl, err := client.New(cfg)
	if err != nil {
		c.fail("connection", err.Error(), "")
		return nil
	}
	defer cl.Close()
	began := time.Now()
	clock, err := cl.Health(ctx)
	took := time.Since(began)
	if err != nil {
		c.fail("connection", innermost(err), connectionHint(err))
		return nil
	}
	c.ok("connection", "TLS 1.3 to %s in %s", cfg.Server, took.Round(100*time.Microsecond))
	c.skew(time.Since(clock), took)
	status, err := cl.Status(ctx)
	p, answered := errors.AsType[*client.Problem](err)
	switch {
	case err == nil:
		c.ok("token", "valid")
	case answered && exitOf(p.Status) == exitDenied:
		c.ok("token", "valid, but it may not read the server's state")
	case answered:
		c.fail("token", p.Detail, p.Hint)
	default:
		c.fail("connection", innermost(err), connectionHint(err))
	}
	return status
}

// maxSkew is how far clocks may differ before times in answers confuse, and tokens seem expired.
const maxSkew = 30 * time.Second

func (c *checks) skew(differ, took time.Duration) {
	// The server's clock comes in whole seconds, and the answer took its time.
	if differ < -maxSkew || differ > maxSkew+took+time.Second {
		c.fail("clocks", fmt.Sprintf("this machine and the server differ by %s", differ.Round(time.Second)), "set both by NTP")
		return
	}
	c.ok("clocks", "this machine and the server agree")
}

// connectionHint says what to do about a connection that fails.
func connectionHint(err error) string {
	if _, untrusted := errors.AsType[*tls.CertificateVerificationError](err); untrusted {
		return "name the server's own CA with --ca-file; the server's log says where it is"
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return "nothing listens there: start the server, or correct --server"
	}
	return "see whether a firewall or a proxy is in the way"
}

// lowSpace is what doctor calls too little free space, in bytes.
const lowSpace = 1 << 30

// state checks what the server says of itself.
func (c *checks) state(s *api.Status) {
	if s.Ready {
		c.ok("server", "version %s, ready", s.Version)
	} else {
		c.fail("server", "version "+s.Version+", not ready: "+s.Reason, "see the server's log")
	}
	if s.Cells != nil {
		c.cells(s.Cells)
	}
	looked := slices.ContainsFunc(*c, func(c check) bool { return c.Name == "disk" })
	if s.DiskFree > 0 && !looked {
		c.disk(s.DiskFree, s.DataDir)
	}
	for _, n := range s.Namespaces {
		detail := fmt.Sprintf("%s: %d accepted = %d done + %d dead + %d pending", n.Name, n.Accepted, n.Done, n.Dead, n.Pending)
		if n.DeadLetters > 0 {
			c.warn("namespace", fmt.Sprintf("%s, %d dead letters", detail, n.DeadLetters), "sallyport dead-letter list --namespace "+n.Name)
			continue
		}
		c.ok("namespace", "%s", detail)
	}
}

// cells checks how functions are kept apart.
func (c *checks) cells(s *api.CellStatus) {
	c.secondWall(s)
	if s.ResetWhy != "" {
		c.warn("cell reset", fmt.Sprintf("%s: %s", s.Reset, s.ResetWhy), "run a kernel from Linux 6.7 on, and allow userfaultfd")
		return
	}
	c.ok("cell reset", "%s", s.Reset)
}

func (c *checks) secondWall(s *api.CellStatus) {
	var stand, missing []string
	for _, w := range s.Walls {
		if w.Stands {
			stand = append(stand, w.Name)
		} else {
			missing = append(missing, w.Name+" ("+w.Detail+")")
		}
	}
	switch {
	case s.SecondWall == manifest.WallOff:
		c.warn("second wall", "none: functions run in the server's own process", "right for development; in server.toml, second_wall = \"on\" in [cells]")
	case len(missing) > 0:
		c.warn("second wall", "missing: "+strings.Join(missing, ", "), "use a newer kernel, or allow what the container or the service unit forbids")
	case s.Lost > 0:
		c.warn("second wall", fmt.Sprintf("%s; %d workers were lost", strings.Join(stand, ", "), s.Lost), "the server's log says how they ended")
	default:
		c.ok("second wall", "%s", strings.Join(stand, ", "))
	}
}

func (c *checks) disk(free int64, dir string) {
	detail := size(free) + " free in " + dir
	if free < lowSpace {
		c.fail("disk", detail, "free space, or let retention remove more ([events] in server.toml)")
		return
	}
	c.ok("disk", "%s", detail)
}
