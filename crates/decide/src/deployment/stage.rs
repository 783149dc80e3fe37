//! The stages of a deployment that shifts traffic, in ECS's words.

use serde::{Deserialize, Serialize};

/// In the order in which a deployment goes through them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Stage {
    /// More than one revision had tasks when it began: all but one give way.
    ReconcileService,
    PreScaleUp,
    /// The target gets its tasks.
    ScaleUp,
    PostScaleUp,
    TestTrafficShift,
    PostTestTrafficShift,
    /// Before each step of the production traffic. Of ECS's stages it is one for hooks only.
    PreProductionTrafficShift,
    ProductionTrafficShift,
    PostProductionTrafficShift,
    /// Source and target stand side by side.
    BakeTime,
    /// The source loses its tasks; on the way back, the target.
    CleanUp,
}

use Stage::*;

impl Stage {
    pub const ALL: [Stage; 11] = [
        ReconcileService,
        PreScaleUp,
        ScaleUp,
        PostScaleUp,
        TestTrafficShift,
        PostTestTrafficShift,
        PreProductionTrafficShift,
        ProductionTrafficShift,
        PostProductionTrafficShift,
        BakeTime,
        CleanUp,
    ];

    /// Its name, as hooks name it.
    pub fn as_str(self) -> &'static str {
        match self {
            ReconcileService => "RECONCILE_SERVICE",
            PreScaleUp => "PRE_SCALE_UP",
            ScaleUp => "SCALE_UP",
            PostScaleUp => "POST_SCALE_UP",
            TestTrafficShift => "TEST_TRAFFIC_SHIFT",
            PostTestTrafficShift => "POST_TEST_TRAFFIC_SHIFT",
            PreProductionTrafficShift => "PRE_PRODUCTION_TRAFFIC_SHIFT",
            ProductionTrafficShift => "PRODUCTION_TRAFFIC_SHIFT",
            PostProductionTrafficShift => "POST_PRODUCTION_TRAFFIC_SHIFT",
            BakeTime => "BAKE_TIME",
            CleanUp => "CLEAN_UP",
        }
    }

    /// The stage that a deployment shows: it has none of the name before a step of its production traffic.
    pub fn shown(self) -> Stage {
        match self {
            PreProductionTrafficShift => ProductionTrafficShift,
            stage => stage,
        }
    }

    /// Whether hooks may be configured at it.
    pub fn takes_hooks(self) -> bool {
        !matches!(self, ScaleUp | BakeTime | CleanUp)
    }

    /// Whether a hook may pause there: traffic that is shifting does not stand still.
    pub fn takes_pauses(self) -> bool {
        self.takes_hooks() && !matches!(self, TestTrafficShift | ProductionTrafficShift)
    }
}
