package returnpath_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"onward/internal/returnpath"
)

func TestLoadSecrets(t *testing.T) {
	long := strings.Repeat("x", 16)
	for _, tt := range []struct {
		name, text string
		mode       os.FileMode
		want       []string
		wantErr    string
	}{
		{"one", long + "\n", 0o600, []string{long}, ""},
		{"no line end", long, 0o400, []string{long}, ""},
		{"several", "# new\n" + long + "1\r\n\n  " + long + "2  \n#" + long + "\n", 0o600, []string{long + "1", long + "2"}, ""},
		{"inner hash and space", long + " # 7\n", 0o600, []string{long + " # 7"}, ""},
		{"short", "# c\n\n" + long[1:] + "\n", 0o600, nil, "the secret in line 3 has 15 characters, and needs at least 16"},
		{"second short", long + "\nshort\n", 0o600, nil, "line 2 has 5"},
		{"empty", "", 0o600, nil, "holds no secret"},
		{"only comments", "# none\n\n", 0o600, nil, "holds no secret"},
		{"group", long, 0o640, nil, "is open to other users (mode 0640): run chmod 600 "},
		{"others", long, 0o604, nil, "chmod 600"},
		{"others write", long, 0o602, nil, "chmod 600"},
		{"huge", strings.Repeat(long+"\n", 5000), 0o600, nil, "larger than"},
	} {
		for _, create := range []bool{false, true} {
			t.Run(tt.name, func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "srs-secret")
				if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.Chmod(path, tt.mode); err != nil {
					t.Fatal(err)
				}
				got, err := returnpath.LoadSecrets(path, create)
				checkSecrets(t, path, got, err, tt.want, tt.wantErr)
				if text, _ := os.ReadFile(path); string(text) != tt.text {
					t.Errorf("the file was changed to %q", text)
				}
			})
		}
	}
}

// checkSecrets also wants every error to be one line that names the file and no
// secret.
func checkSecrets(t *testing.T, path string, got []string, err error, want []string, wantErr string) {
	t.Helper()
	if wantErr == "" {
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("LoadSecrets = %q, %v; want %q", got, err, want)
		}
		return
	}
	if err == nil || got != nil {
		t.Fatalf("LoadSecrets = %q, %v; want an error", got, err)
	}
	for _, part := range []string{wantErr, path} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not say %q", err, part)
		}
	}
	if strings.ContainsAny(err.Error(), "\n") || strings.Contains(err.Error(), "xxx") {
		t.Errorf("error %q", err)
	}
}

func TestSecretsNotFiles(t *testing.T) {
	dir := t.TempDir()
	got, err := returnpath.LoadSecrets(dir, true)
	checkSecrets(t, dir, got, err, nil, "is not a file")

	missing := filepath.Join(dir, "missing")
	got, err = returnpath.LoadSecrets(missing, false)
	checkSecrets(t, missing, got, err, nil, "does not exist: make it with one line of at least 16 random characters")
	if _, err := os.Stat(missing); err == nil {
		t.Error("a file that was not to be made is there")
	}

	nowhere := filepath.Join(dir, "no", "where")
	got, err = returnpath.LoadSecrets(nowhere, true)
	checkSecrets(t, nowhere, got, err, nil, "cannot be made")
}

func TestMakeSecrets(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "srs-secret")
	// What a crash before the rename leaves: half a file of the other name.
	if err := os.WriteFile(path+".new", []byte("half a sec"), 0o600); err != nil {
		t.Fatal(err)
	}
	first, err := returnpath.LoadSecrets(path, true)
	if err != nil || len(first) != 1 || len(first[0]) < 26 {
		t.Fatalf("LoadSecrets = %q, %v", first, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("files %v, %v; want the secret alone", entries, err)
	}
	again, err := returnpath.LoadSecrets(path, true)
	if err != nil || !slices.Equal(again, first) {
		t.Errorf("the second start has %q, %v; the first had %q", again, err, first)
	}
	other, err := returnpath.LoadSecrets(path+"2", true)
	if err != nil || slices.Equal(other, first) {
		t.Errorf("two files have the secret %q, %v", other, err)
	}
}

// A disk that is full gives an error, and no file that the next start would take.
func TestMakeSecretsFails(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "srs-secret")
	if err := os.Symlink("/dev/full", path+".new"); err != nil {
		t.Skip(err)
	}
	got, err := returnpath.LoadSecrets(path, true)
	if err == nil {
		t.Fatalf("LoadSecrets = %q", got)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("there is a secret file that was not written")
	}
	if _, err := returnpath.LoadSecrets(path, true); err != nil {
		t.Errorf("the next start: %v", err)
	}
}
