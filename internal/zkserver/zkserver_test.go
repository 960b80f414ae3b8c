package zkserver

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWriteStandalone(t *testing.T) {
	dir := t.TempDir()
	path, err := Config{ClientPort: 2181}.Write(dir)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"clientPort=2181\n", "tickTime=2000\n", "dataDir=" + filepath.Join(dir, "data") + "\n"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "data", "myid")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a standalone server has no myid: %v", err)
	}
}

func TestWriteMember(t *testing.T) {
	dir := t.TempDir()
	path, err := Config{ID: 2, ClientPort: 2182, Members: []Member{{1, "a", 2888, 3888}, {2, "b", 2889, 3889}}}.Write(dir)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := os.ReadFile(path)
	if !strings.Contains(string(text), "server.2=b:2889:3889\n") {
		t.Errorf("no member line in\n%s", text)
	}
	if id, _ := os.ReadFile(filepath.Join(dir, "data", "myid")); string(id) != "2" {
		t.Errorf("myid = %q", id)
	}
}

func TestFindNamesWhatIsMissing(t *testing.T) {
	if _, err := findJava(); err != nil {
		t.Skip(err)
	}
	t.Setenv("ZOOKEEPER_CLASSPATH", "")
	t.Setenv("ZOOKEEPER_HOME", t.TempDir())
	_, err := Find()
	if !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "ZOOKEEPER_HOME") {
		t.Errorf("Find = %v", err)
	}
}
