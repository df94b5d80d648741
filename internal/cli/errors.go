package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"sallyport/client"
	"sallyport/internal/problem"
)

// report writes an error in its one form to stderr and returns the exit code of its class.
func (a *app) report(err error) int {
	if o, ok := errors.AsType[outcome](err); ok {
		return int(o)
	}
	s, code := classify(err)
	render(a.env.Stderr, s, a.colours())
	return code
}

// reportUsage is report for a command line that cannot be meant.
func (a *app) reportUsage(cmd *cobra.Command, err usageError) int {
	render(a.env.Stderr, shown{text: err.Error(), code: "cli.usage", next: cmd.CommandPath() + " --help"}, a.colours())
	return exitUsage
}

// classify returns how an error is shown, and its exit code.
func classify(err error) (shown, int) {
	if p, ok := errors.AsType[*client.Problem](err); ok {
		return shownAnswer(p), exitOf(p.Status)
	}
	if p, ok := errors.AsType[*problem.Error](err); ok {
		return shownProblem(p), exitOf(p.Kind.Status())
	}
	if isConnection(err) {
		return shownConnection(err), exitUnreachable
	}
	return shown{text: err.Error(), code: "cli.failed"}, exitFailed
}

// exitOf returns the exit code of an HTTP status.
func exitOf(status int) int {
	switch status {
	case http.StatusUnauthorized:
		return exitLogin
	case http.StatusForbidden:
		return exitDenied
	case http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return exitUnreachable
	}
	return exitFailed
}

// isConnection reports whether an error is of the way to the server, not of its answer. An error of a
// file is none, though system errors look like errors of the network.
func isConnection(err error) bool {
	_, isURL := errors.AsType[*url.Error](err)
	_, isOp := errors.AsType[*net.OpError](err)
	return isURL || isOp || errors.Is(err, client.ErrStreamEnded) || errors.Is(err, io.ErrUnexpectedEOF)
}

// shownConnection says why the server was not reached, and what to do about it.
func shownConnection(err error) shown {
	s := shown{
		text: "the server cannot be reached: " + innermost(err), code: "cli.unreachable",
		next: "start a server with `sallyport dev`, or name one with --server; `sallyport doctor` looks for the cause",
	}
	switch _, untrusted := errors.AsType[*tls.CertificateVerificationError](err); {
	case untrusted:
		s.text, s.code = "the server's certificate is not trusted: "+innermost(err), "cli.untrusted"
		s.next = "name the server's CA with --ca-file; the server's log says where it is"
	case errors.Is(err, client.ErrStreamEnded):
		s.text, s.next = "the server ended the stream; it is probably stopping", "run the command again once the server is back"
	case errors.Is(err, context.DeadlineExceeded) || os.IsTimeout(err):
		s.text = "the server did not answer in time"
	}
	return s
}

// innermost returns the text of a connection error without the request around it.
func innermost(err error) string {
	if v, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return v.Err.Error()
	}
	if o, ok := errors.AsType[*net.OpError](err); ok && o.Addr != nil {
		return fmt.Sprintf("%s: %v", o.Addr, rootCause(o.Err))
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err.Error()
	}
	return err.Error()
}

// rootCause returns the error that err wraps last: the system's own word.
func rootCause(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

// flagError makes a fault in the flags one of usage, with the flag that was probably meant.
func flagError(cmd *cobra.Command, err error) error {
	wrong, ok := errors.AsType[*pflag.NotExistError](err)
	if !ok || len(wrong.GetSpecifiedName()) < 2 {
		return usageError{err}
	}
	name, best, distance := wrong.GetSpecifiedName(), "", suggestionDistance+1
	visit := func(f *pflag.Flag) {
		if d := editDistance(name, f.Name); !f.Hidden && (d < distance || d == distance && best == "" && strings.HasPrefix(f.Name, name)) {
			best, distance = f.Name, d
		}
	}
	cmd.Flags().VisitAll(visit)
	cmd.InheritedFlags().VisitAll(visit)
	if best == "" {
		return usage("unknown flag --%s", clean(name))
	}
	return usage("unknown flag --%s; did you mean --%s?", clean(name), best)
}

// maxDistanceText bounds the texts that are compared; flags are shorter.
const maxDistanceText = 64

// editDistance returns how many insertions, deletions and replacements of bytes make s into t
// (Levenshtein's distance).
func editDistance(s, t string) int {
	if len(s) > maxDistanceText || len(t) > maxDistanceText {
		return maxDistanceText
	}
	row := make([]int, len(t)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(s) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(t) {
			cost := diagonal
			if s[i] != t[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(row[j+1]+1, row[j]+1, cost)
		}
	}
	return row[len(t)]
}

// inFolder makes the places of a fault in an app's files findable from the working directory.
func inFolder(err error, dir string) error {
	if filepath.Clean(dir) == "." {
		return err
	}
	place := func(file string) string {
		if file == "" || filepath.IsAbs(file) {
			return file
		}
		return filepath.ToSlash(filepath.Join(dir, filepath.FromSlash(file)))
	}
	if p, ok := errors.AsType[*problem.Error](err); ok {
		moved := *p
		moved.Faults = append([]problem.Fault(nil), p.Faults...)
		for i := range moved.Faults {
			moved.Faults[i].File = place(moved.Faults[i].File)
		}
		return &moved
	}
	if p, ok := errors.AsType[*client.Problem](err); ok {
		moved := *p
		moved.Errors = append(moved.Errors[:0:0], p.Errors...)
		for i := range moved.Errors {
			moved.Errors[i].File = place(moved.Errors[i].File)
		}
		return &moved
	}
	return err
}

// colours reports whether stderr is a terminal that wants colours.
func (a *app) colours() bool {
	f, ok := a.env.Stderr.(*os.File)
	return ok && a.env.Getenv("NO_COLOR") == "" && a.env.Getenv("TERM") != "dumb" && term.IsTerminal(int(f.Fd()))
}
