// Package cli is the command line. It talks to a server through the client package and nothing else;
// only `server` and `dev` run one themselves.
//
// stdout is data, stderr is talk: what a command answers can always be piped on. Every command that
// answers with data knows -o text, json and ndjson. Errors have one form (render.go), and each class of
// them an exit code. Text that comes from elsewhere is cleaned before a terminal sees it.
//
// It keeps no state but what `dev` leaves in the app's folder. Caller: cmd/sallyport.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"sallyport/client"
)

// The exit codes, as `sallyport help exit-codes` explains them.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitFound       = 3 // a check found problems
	exitLogin       = 4
	exitDenied      = 5
	exitUnreachable = 6
	exitInterrupted = 130
)

// Env is what the command line has of the process.
type Env struct {
	Args           []string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Getenv         func(string) string
	Version        string
}

// Main runs one command and returns its exit code. It ends early when ctx does.
func Main(ctx context.Context, env Env) int {
	a := &app{env: env}
	root := a.root()
	root.SetArgs(env.Args)
	root.SetIn(env.Stdin)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	cmd, err := root.ExecuteContextC(ctx)
	switch {
	case err == nil:
		return exitOK
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		return exitInterrupted
	}
	if u, ok := errors.AsType[usageError](err); ok {
		return a.reportUsage(cmd, u)
	}
	return a.report(err)
}

// app is one run of the command line.
type app struct {
	env    Env
	output string // one of outputs
	quiet  bool
	conn   connection
}

// The forms of an answer.
const (
	formText   = "text"
	formJSON   = "json"
	formNDJSON = "ndjson"
)

// usageError is a command line that cannot be meant.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }

func usage(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// outcome is an exit code without a message: what there is to say was said.
type outcome int

func (o outcome) Error() string { return fmt.Sprintf("exit code %d", int(o)) }

func (a *app) root() *cobra.Command {
	root := group("sallyport", "Secure, self-hosted, serverless event processing")
	root.Long = `Sallyport takes events, checks them, stores them sealed and hands each to the functions that subscribe to it.

Begin with:  sallyport init hello && cd hello && sallyport dev`
	root.SilenceUsage, root.SilenceErrors = true, true
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		switch a.output {
		case formText, formJSON, formNDJSON:
			return nil
		}
		return usage("unknown output form %q; want text, json or ndjson", a.output)
	}
	root.SetFlagErrorFunc(flagError)
	flags := root.PersistentFlags()
	flags.StringVarP(&a.output, "output", "o", formText, "form of the answer: text, json or ndjson")
	flags.BoolVarP(&a.quiet, "quiet", "q", false, "print ids only, and no talk")
	a.conn.flags(flags)
	root.AddCommand(
		a.initCommand(), a.devCommand(), a.serverCommand(), a.applyCommand(), a.sendCommand(), a.invokeCommand(),
		a.logsCommand(), a.statusCommand(), a.doctorCommand(), a.explainCommand(), a.versionCommand(),
		a.functionCommand(), a.subscriptionCommand(), a.usageCommand(), a.eventCommand(), a.deadLetterCommand(), a.tokenCommand(), a.issuerCommand(), a.secretCommand(), a.databaseCommand(), a.namespaceCommand(), a.approvalCommand(), a.policyCommand(), a.perimeterCommand(),
		a.loginCommand(), a.logoutCommand(),
		a.workerCommand(),
	)
	root.AddCommand(topics()...)
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions( // the flag is there
		[]cobra.Completion{formText, formJSON, formNDJSON}, cobra.ShellCompDirectiveNoFileComp))
	return root
}

// suggestionDistance is how many characters a wrong word may differ from the right one.
const suggestionDistance = 2

// group returns a command that only holds others.
func group(use, short string, children ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short, Args: cobra.ArbitraryArgs, SuggestionsMinimumDistance: suggestionDistance,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			near := ""
			if list := cmd.SuggestionsFor(args[0]); len(list) > 0 {
				near = fmt.Sprintf("; did you mean %q?", list[0])
			}
			return usage("unknown command %q for %q%s", clean(args[0]), cmd.CommandPath(), near)
		},
	}
	c.AddCommand(children...)
	return c
}

// exactly is cobra.ExactArgs with a sentence of ours.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return usage("%s takes %s", cmd.CommandPath(), what)
		}
		return nil
	}
}

// atMostOne is exactly for one argument that may be left out.
func atMostOne(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > 1 {
			return usage("%s takes %s, or nothing", cmd.CommandPath(), what)
		}
		return nil
	}
}

// noArguments is exactly for none.
func noArguments() cobra.PositionalArgs { return exactly(0, "no arguments, only flags") }

// with returns the body of a command that talks to the server the user means.
func (a *app) with(do func(ctx context.Context, c *client.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		defer c.Close()
		return do(cmd.Context(), c, args)
	}
}
