package logstore

import (
	"fmt"
	"path/filepath"

	"ottla/internal/cluster"
)

// agreeOnMeta refuses directories of different brokers or clusters, and fills in what they lack.
func (m *Manager) agreeOnMeta() error {
	o := &m.options
	for _, d := range m.dirs {
		meta := d.meta()
		if meta.ClusterID != "" {
			if o.ClusterID != "" && o.ClusterID != meta.ClusterID {
				return fmt.Errorf("log directory %s belongs to cluster %s, not to %s", d.path, meta.ClusterID, o.ClusterID)
			}
			o.ClusterID = meta.ClusterID
		}
		if meta.BrokerID != cluster.NoBroker {
			if o.BrokerID != cluster.NoBroker && o.BrokerID != meta.BrokerID {
				return fmt.Errorf("log directory %s belongs to broker %d, not to %d", d.path, meta.BrokerID, o.BrokerID)
			}
			o.BrokerID = meta.BrokerID
		}
	}
	if o.ClusterID == "" || o.BrokerID == cluster.NoBroker {
		return nil // Format will, once they are known
	}
	return m.Format(o.BrokerID, o.ClusterID)
}

// Format writes meta.properties where it is missing or incomplete. OpenManager does it when it knows both values.
func (m *Manager) Format(id cluster.BrokerID, clusterID string) error {
	for _, d := range m.dirs {
		if d.fault() != nil {
			continue
		}
		was := d.meta()
		meta := was
		meta.BrokerID, meta.ClusterID = id, clusterID
		if meta.DirectoryID == "" {
			meta.DirectoryID = NewDirectoryID()
		}
		if meta == was {
			continue
		}
		if err := WriteMeta(d.fs, d.path, meta); err != nil {
			return storageError("write", filepath.Join(d.path, MetaPropertiesFile), err)
		}
		d.mu.Lock()
		d.mu.meta = meta
		d.mu.Unlock()
	}
	return nil
}

// Identity is what the directories say of whom they belong to: NoBroker and "" when they are all new.
func (m *Manager) Identity() (cluster.BrokerID, string) {
	return m.options.BrokerID, m.options.ClusterID
}
