"""The break: MMEngine 0.10 hands FSDP the optimizer's state and the model in each other's place, and cannot resume."""

from mmengine.config import Config


def allow_fsdp_resume(cfg: Config) -> None:
    """Let a run of a config with ``FSDPStrategy`` be resumed. FSDP is imported for such a config alone."""
    if cfg.get('strategy', {}).get('type') != 'FSDPStrategy':
        return
    from mmengine._strategy.fsdp import FSDP, FSDPStrategy

    def load_optim_state_dict(self, state_dict: dict) -> None:
        wrapper = self.optim_wrapper
        wrapper.load_state_dict(FSDP.optim_state_dict_to_load(self.model, wrapper.optimizer, state_dict))

    FSDPStrategy.load_optim_state_dict = load_optim_state_dict
