package telemetry

import (
	"fmt"
	"io"
	"log/slog"
	"regexp"
)

// Logger returns a logger in the given format ("text" or "json") and level. It is the last to see what
// is logged: no text or error passes with a token in it, wherever it came from.
func Logger(w io.Writer, format, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level %q: %w", level, err)
	}
	opts := &slog.HandlerOptions{Level: l, ReplaceAttr: redact}
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

// redact takes tokens out of an attribute. Code does not log them; a text from outside, such as a
// panic's or another library's, may have one in it.
func redact(_ []string, a slog.Attr) slog.Attr {
	switch a.Value.Kind() {
	case slog.KindString:
	case slog.KindAny:
		switch a.Value.Any().(type) {
		case error, fmt.Stringer:
		default:
			return a
		}
	default:
		return a
	}
	if text := a.Value.String(); tokenText.MatchString(text) {
		a.Value = slog.StringValue(tokenText.ReplaceAllString(text, "${1}[redacted]"))
	}
	return a
}
