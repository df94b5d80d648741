package manifest

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// parseDuration parses a duration of Go's form, such as "1.5s", or whole days, such as "7d".
func parseDuration(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16) // 65,535 days are within a Duration
		return time.Duration(n) * 24 * time.Hour, err
	}
	return time.ParseDuration(text)
}

// formatDuration is the shortest text that parseDuration reads as d.
func formatDuration(d time.Duration) string {
	const day = 24 * time.Hour
	if d > day && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// sizeUnits are the units of sizes. B is last, because all end in it.
var sizeUnits = []struct {
	suffix string
	bytes  int64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"B", 1}}

// ParseSize reads a size as manifests have them, such as 10MiB.
func ParseSize(text string) (int64, error) { return parseSize(text) }

func parseSize(text string) (int64, error) {
	for _, u := range sizeUnits {
		if digits, ok := strings.CutSuffix(text, u.suffix); ok {
			n, err := strconv.ParseUint(strings.TrimSuffix(digits, " "), 10, 63)
			if err != nil || n > uint64(1<<62/u.bytes) {
				return 0, cmp.Or(err, strconv.ErrRange)
			}
			return int64(n) * u.bytes, nil
		}
	}
	return 0, strconv.ErrSyntax
}

// FormatSize is the shortest text that ParseSize reads as n.
func FormatSize(n int64) string { return formatSize(n) }

func formatSize(n int64) string {
	for _, u := range slices.Backward(sizeUnits[:4]) {
		if n >= u.bytes && n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.suffix
		}
	}
	return strconv.FormatInt(n, 10) + "B"
}

// clip keeps a hostile name from filling a message.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	end := most
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + "…"
}
