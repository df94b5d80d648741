package telemetry

import (
	"fmt"
	"io"
	"log/slog"
	"regexp"
)

// Logger returns a logger in the given format ("text" or "json") and level. It is the last to see what
// is logged: no text or error passes with a token in it, or with what hide takes out of a text, wherever it came from. hide may be nil.
func Logger(w io.Writer, format, level string, hide func(string) string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level %q: %w", level, err)
	}
	opts := &slog.HandlerOptions{Level: l, ReplaceAttr: redact(hide)}
	switch format {
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	}
	return nil, fmt.Errorf("log format %q: want text or json", format)
}

// tokenText matches the text of a token from its secret on. The id before it is no secret, and tells
// the operator which token to revoke.
var tokenText = regexp.MustCompile(`(sp_[0-9a-f]{16}_)[0-9A-Za-z_]+`)

// redact takes tokens, and what hide does, out of an attribute. Code does not log them; a text from outside, such as a panic's or another
// library's, may have one in it.
func redact(hide func(string) string) func([]string, slog.Attr) slog.Attr {
	return func(_ []string, a slog.Attr) slog.Attr {
		var text string
		switch a.Value.Kind() {
		case slog.KindString, slog.KindAny:
			text = a.Value.String()
		default:
			return a
		}
		clean := text
		if tokenText.MatchString(clean) {
			clean = tokenText.ReplaceAllString(clean, "${1}[redacted]")
		}
		if hide != nil {
			clean = hide(clean)
		}
		if clean != text {
			a.Value = slog.StringValue(clean)
		}
		return a
	}
}
