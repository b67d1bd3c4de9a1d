package certificate

import (
	"context"
	"log/slog"
	"slices"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"onward/internal/reply"
)

// bridge returns certmagic's kind of log, which writes to ours. What it calls
// information is of interest only to whoever looks for a fault, and what it
// calls debugging to nobody.
func bridge(log *slog.Logger) *zap.Logger {
	return zap.New(core{log.Handler()})
}

type core struct{ handler slog.Handler }

var levels = map[zapcore.Level]slog.Level{
	zapcore.InfoLevel:  slog.LevelDebug,
	zapcore.WarnLevel:  slog.LevelWarn,
	zapcore.ErrorLevel: slog.LevelError,
}

// Enabled, With, Check, Write and Sync implement zapcore.Core.
func (c core) Enabled(l zapcore.Level) bool {
	level, ok := levels[l]
	return ok && c.handler.Enabled(context.Background(), level)
}

func (c core) With(fields []zapcore.Field) zapcore.Core {
	return core{c.handler.WithAttrs(attributes(fields))}
}

func (c core) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return checked.AddCore(e, c)
	}
	return checked
}

func (c core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	r := slog.NewRecord(e.Time, levels[e.Level], "certificate: "+reply.Clean(e.Message), 0)
	r.AddAttrs(attributes(fields)...)
	return c.handler.Handle(context.Background(), r)
}

func (c core) Sync() error { return nil }

// attributes turns fields into ours, in the order of their names, with texts of
// the authority cleaned.
func attributes(fields []zapcore.Field) []slog.Attr {
	m := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(m)
	}
	var attrs []slog.Attr
	for key, value := range m.Fields {
		if key == "error" {
			key = "err"
		}
		if text, ok := value.(string); ok {
			value = reply.Clean(text)
		}
		attrs = append(attrs, slog.Any(key, value))
	}
	slices.SortFunc(attrs, func(a, b slog.Attr) int { return strings.Compare(a.Key, b.Key) })
	return attrs
}
