"""Networks with weights and running statistics that no fresh network has, for parity tests."""

import torch
from torch import Tensor, nn

NORMS = (nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)


def random_weights(network: nn.Module, seed: int) -> nn.Module:
    """Give every parameter and statistic another value than a fresh network's: no two parts may pass for each other."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                assert module.num_batches_tracked is not None
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 2)
                module.num_batches_tracked.fill_(int(torch.randint(1, 999, ())))
            if isinstance(module, NORMS):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)
            elif isinstance(module, nn.Linear):
                module.weight.normal_(0, module.in_features**-0.5)
                module.bias.normal_(0, 0.1)
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    module.bias.normal_(0, 0.1)
    return network.eval()


def assert_same_logits(ours: Tensor, theirs: Tensor) -> None:
    """(2, classes) each: equal to 1e-4, and not because both say nothing, or the same of either image."""
    assert ours.shape == theirs.shape
    assert theirs.std() > 0.05
    assert (theirs[0] - theirs[1]).std() > 0.05
    difference = (ours - theirs).abs().max().item()
    print(f"largest difference of a logit {difference:.1e}, their deviation {theirs.std():.2f}")
    assert difference < 1e-4


def two_images(height: int, width: int) -> Tensor:
    """(2, 3, height, width), the second of more contrast: random networks hardly tell like noise apart."""
    return torch.randn(2, 3, height, width) * torch.tensor([1.0, 4.0]).reshape(2, 1, 1, 1)
