package cli

import "github.com/spf13/cobra"

// topics returns the help texts that belong to no command.
func topics() []*cobra.Command {
	return []*cobra.Command{
		{Use: "exit-codes", Short: "What the exit codes mean", Long: `Exit codes:
  0    done
  1    failed; with send --wait: an event ended as a dead letter
  2    wrong usage
  3    a check found problems
  4    a valid token is needed
  5    denied by policy
  6    the server cannot be reached, is not ready, or did not finish in time
  130  interrupted`},
		{Use: "environment", Short: "The environment variables", Long: `Environment variables; a flag comes before each of them:
  SALLYPORT_SERVER      URL of the server
  SALLYPORT_CA_FILE     CA certificate of the server
  SALLYPORT_TOKEN_FILE  file with the token
  SALLYPORT_CERT_FILE   file with a client certificate
  SALLYPORT_KEY_FILE    file with its key
  SALLYPORT_TOKEN       the token itself, when no file is named
  XDG_CONFIG_HOME       folder that has sallyport/logins.json, where ` + "`sallyport login`" + ` keeps tokens (default ~/.config)
  SALLYPORT_NAMESPACE   namespace, "default" when there is none
  NO_COLOR              no colours, when it is set

When no server is named, a command talks to the one that ` + "`sallyport dev`" + ` runs for this folder or one above it. Dev
leaves word of it in .sallyport/ready.json; a file there that another user could have written, or that names another
machine, is refused.`},
		{Use: "formatting", Short: "The forms of answers", Long: `Answers go to stdout, everything else to stderr.
  -o text    for people: tables and lines; it may change between versions
  -o json    one JSON value; members may be added, none changes its meaning
  -o ndjson  one JSON value a line, for each item of a list
  --quiet    ids only, one a line, and no talk

Times are RFC 3339 in UTC, sizes are bytes, durations are such as 1.5s. Where a time is asked for, 10m is ten minutes ago.

  sallyport event list --state dead -o ndjson | jq -r .id
  sallyport dead-letter redrive $(sallyport dead-letter list --quiet)`},
	}
}
